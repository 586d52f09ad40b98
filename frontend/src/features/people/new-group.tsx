import { useState } from 'react';
import { useForm } from 'react-hook-form';
import { useTranslation } from 'react-i18next';
import { useLocation } from 'wouter';
import { Button } from '@/components/ui/button';
import { Dialog } from '@/components/ui/dialog';
import { Field } from '@/components/ui/field';
import { useRealtime } from '@/features/home/context';
import { api } from '@/lib/api';
import type { User } from '@/protocol';
import { PeoplePicker } from './people-picker';

export const validName = (name: string): boolean => name.trim().length > 0 && [...name.trim()].length <= 100;

export function NewGroup({ onClose }: { onClose(): void }) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const [, navigate] = useLocation();
  const [people, setPeople] = useState<User[]>([]);
  const { register, handleSubmit, setError, formState: { errors, isSubmitting } } = useForm({ defaultValues: { name: '' } });
  const submit = handleSubmit(async ({ name }) => {
    try {
      const room = await api.createRoom({ roomType: 'group', name: name.trim(), memberIds: people.map(({ id }) => id) });
      realtime.takeRoom(room);
      onClose();
      navigate(`/rooms/${room.id}`);
    } catch (error) {
      setError('name', { message: (error as Error).message });
    }
  });
  return (
    <Dialog
      open
      onOpenChange={onClose}
      title={t('newGroup')}
      footer={<><Button onClick={onClose}>{t('cancel')}</Button><Button kind="primary" busy={isSubmitting} onClick={() => void submit()}>{t('create')}</Button></>}
    >
      <form noValidate onSubmit={(event) => void submit(event)} className="grid gap-4">
        <Field label={t('groupName')} autoComplete="off" error={errors.name?.message} {...register('name', { validate: (name) => validName(name) || t('groupNameRule') })} />
        <PeoplePicker chosen={people} onChange={setPeople} without={new Set([realtime.me])} />
      </form>
    </Dialog>
  );
}
