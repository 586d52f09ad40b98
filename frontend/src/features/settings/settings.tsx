import clsx from 'clsx';
import { useState } from 'react';
import { useForm } from 'react-hook-form';
import { useTranslation } from 'react-i18next';
import { session, setUser } from '@/auth/sessions';
import { Button } from '@/components/ui/button';
import { Dialog } from '@/components/ui/dialog';
import { Field } from '@/components/ui/field';
import { toast } from '@/components/ui/toast';
import { api } from '@/lib/api';
import { type Language, language, notify, type Theme, theme } from '@/lib/settings';
import { useStore } from '@/lib/use-store';

export function Settings({ onClose }: { onClose(): void }) {
  const { t } = useTranslation();
  return (
    <Dialog open onOpenChange={onClose} title={t('settings')}>
      <div className="grid gap-6">
        <Profile />
        <Choice<Theme>
          title={t('theme')} value={useStore(theme)} onChange={(value) => theme.set(value)}
          options={[['system', t('themeSystem')], ['light', t('themeLight')], ['dark', t('themeDark')]]}
        />
        <Choice<Language>
          title={t('language')} value={useStore(language)} onChange={(value) => language.set(value)}
          options={[['en', 'English'], ['de', 'Deutsch']]}
        />
        <Notifications />
      </div>
    </Dialog>
  );
}

function Profile() {
  const { t } = useTranslation();
  const user = useStore(session)?.user;
  const { register, handleSubmit, setError, formState: { errors, isSubmitting, isDirty }, reset } = useForm({
    defaultValues: { displayName: user?.displayName ?? '' },
  });
  const submit = handleSubmit(async ({ displayName }) => {
    try {
      const next = await api.updateMe({ displayName: displayName.trim() });
      setUser(next);
      reset({ displayName: next.displayName });
      toast(t('saved'));
    } catch (error) {
      setError('displayName', { message: (error as Error).message });
    }
  });
  return (
    <form noValidate onSubmit={(event) => void submit(event)} className="flex items-end gap-2">
      <Field
        className="flex-1" label={t('displayName')} autoComplete="name" error={errors.displayName?.message}
        {...register('displayName', {
          validate: (name) => (name.trim() === '' ? t('required') : [...name.trim()].length <= 64 || t('tooLong')),
        })}
      />
      <Button type="submit" className="min-h-11" disabled={!isDirty} busy={isSubmitting}>{t('save')}</Button>
    </form>
  );
}

function Choice<T extends string>({ title, value, options, onChange }: {
  title: string; value: T; options: readonly (readonly [T, string])[]; onChange(value: T): void;
}) {
  return (
    <fieldset>
      <legend className="mb-1.5 text-sm font-medium">{title}</legend>
      <div className="flex gap-1 rounded-2xl bg-hover p-1">
        {options.map(([name, label]) => (
          <label
            key={name}
            className={clsx(
              'min-h-10 flex-1 rounded-xl px-3 py-2 text-center has-focus-visible:outline-2 has-focus-visible:outline-accent',
              name === value ? 'bg-raised font-medium shadow-sm dark:bg-tint' : 'text-soft',
            )}
          >
            <input type="radio" name={title} value={name} checked={name === value} onChange={() => onChange(name)} className="sr-only" />
            {label}
          </label>
        ))}
      </div>
    </fieldset>
  );
}

function Notifications() {
  const { t } = useTranslation();
  const on = useStore(notify);
  const [denied, setDenied] = useState(typeof Notification !== 'undefined' && Notification.permission === 'denied');
  if (typeof Notification === 'undefined') return null;
  const change = async (wanted: boolean) => {
    if (!wanted) return notify.set(false);
    const answer = await Notification.requestPermission();
    setDenied(answer === 'denied');
    notify.set(answer === 'granted');
  };
  return (
    <div>
      <p className="mb-1.5 text-sm font-medium">{t('notifications')}</p>
      <label className="flex items-center gap-3">
        <input type="checkbox" checked={on && !denied} onChange={(event) => void change(event.target.checked)} className="size-5 accent-(--accent)" />
        {t('notifyMe')}
      </label>
      {denied && <p role="alert" className="mt-1 text-sm text-danger">{t('notifyDenied')}</p>}
    </div>
  );
}
