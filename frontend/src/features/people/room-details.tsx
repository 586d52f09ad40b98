import { BellOff, BellRing, Crown, LogOut, MessageCircle, MoreVertical, Pencil, Shield, ShieldOff, UserMinus, UserPlus } from 'lucide-react';
import { useState } from 'react';
import { useForm } from 'react-hook-form';
import { useTranslation } from 'react-i18next';
import { useLocation } from 'wouter';
import { Avatar } from '@/components/ui/avatar';
import { Button, IconButton } from '@/components/ui/button';
import { Confirm, Dialog } from '@/components/ui/dialog';
import { Field } from '@/components/ui/field';
import { MenuContent, MenuItem, MenuRoot, MenuTrigger } from '@/components/ui/menu';
import { toast } from '@/components/ui/toast';
import { useHere } from '@/features/home/context';
import { useFace } from '@/features/rooms/use-room';
import { useChat } from '@/features/chat/context';
import { api } from '@/lib/api';
import { useStore } from '@/lib/use-store';
import type { Member, Role, Room, User } from '@/protocol';
import { validName } from './new-group';
import { PeoplePicker } from './people-picker';
import { useOpenDirect } from './use-open-direct';

const RANK: Record<Role, number> = { owner: 0, admin: 1, member: 2 };

type Asking = { kind: 'leave' } | { kind: 'remove' | 'handOver'; member: Member } | null;

/** Who is in a room, and what may be done about it. */
export function RoomDetails({ onClose }: { onClose(): void }) {
  const { t } = useTranslation();
  const { realtime, muted } = useHere();
  const { room, members } = useChat();
  const [, navigate] = useLocation();
  const face = useFace(room);
  const silent = useStore(muted).has(room.id);
  const presence = useStore(realtime.presence);
  const [view, setView] = useState<'members' | 'add' | 'rename'>('members');
  const [asking, setAsking] = useState<Asking>(null);
  const openDirect = useOpenDirect();
  const group = room.roomType === 'group';
  const myRole = members.find((one) => one.userId === realtime.me)?.role ?? 'member';
  const manages = group && myRole !== 'member';
  const sorted = members.toSorted((a, b) => RANK[a.role] - RANK[b.role] || a.displayName.localeCompare(b.displayName));

  const attempt = async (action: () => Promise<Room | null>) => {
    try {
      const next = await action();
      if (next) realtime.takeRoom(next);
    } catch (error) {
      toast((error as Error).message);
    }
  };
  const setRole = (member: Member, role: Role) => attempt(() => api.setRole(room.id, member.userId, role));
  const remove = (member: Member) => attempt(async () => {
    await api.removeMember(room.id, member.userId);
    return { ...room, members: members.filter((one) => one.userId !== member.userId) };
  });
  const leave = async () => {
    try {
      await api.removeMember(room.id, realtime.me);
      onClose();
      navigate('/', { replace: true });
      realtime.dropRoom(room.id);
    } catch (error) {
      toast((error as Error).message);
    }
  };
  const write = (member: Member) => {
    openDirect(member.userId).then((id) => { onClose(); navigate(`/rooms/${id}`); }, (error: Error) => toast(error.message));
  };
  const mayRemove = (member: Member) => manages && member.userId !== realtime.me && (myRole === 'owner' ? member.role !== 'owner' : member.role === 'member');

  if (view === 'add') return <AddPeople room={room} members={members} onDone={(next) => { if (next) realtime.takeRoom(next); setView('members'); }} />;
  if (view === 'rename') return <Rename room={room} onDone={(next) => { if (next) realtime.takeRoom(next); setView('members'); }} />;

  return (
    <Dialog open onOpenChange={onClose} title={t('detailsShort')}>
      <div className="grid justify-items-center gap-2 pb-4 text-center">
        <Avatar id={face.id} name={face.title} url={face.url} group={group} size="lg" />
        <p className="flex max-w-full items-center gap-1 text-lg font-semibold">
          <span className="truncate">{face.title}</span>
          {manages && <IconButton label={t('rename')} onClick={() => setView('rename')}><Pencil /></IconButton>}
        </p>
        <p className="text-soft">{group ? t('members', { count: members.length }) : `@${members.find((one) => one.userId !== realtime.me)?.username ?? ''}`}</p>
      </div>
      <div className="mb-4 flex flex-wrap justify-center gap-2">
        <Button aria-pressed={silent} onClick={() => muted.toggle(room.id)}>
          {silent ? <BellRing aria-hidden className="size-4.5" /> : <BellOff aria-hidden className="size-4.5" />}{silent ? t('unmute') : t('mute')}
        </Button>
        {manages && <Button onClick={() => setView('add')}><UserPlus aria-hidden className="size-4.5" />{t('addPeople')}</Button>}
      </div>
      {group && (
        <>
          <ul aria-label={t('members', { count: members.length })} className="-mx-2">
            {sorted.map((member) => (
              <li key={member.userId} className="flex items-center gap-3 rounded-xl px-2 py-1.5">
                <Avatar
                  id={member.userId} name={member.displayName} url={member.avatarUrl} size="sm"
                  status={member.userId === realtime.me ? 'online' : presence.get(member.userId)?.status ?? 'offline'}
                />
                <span className="min-w-0 flex-1">
                  <span className="block truncate">{member.displayName}{member.userId === realtime.me && <span className="text-soft"> ({t('you')})</span>}</span>
                  <span className="block truncate text-sm text-soft">@{member.username}</span>
                </span>
                {member.role !== 'member' && <span className="rounded-full bg-tint px-2.5 py-0.5 text-xs font-medium text-accent">{t(member.role)}</span>}
                {member.userId !== realtime.me ? (
                  <MenuRoot>
                    <MenuTrigger asChild><IconButton label={t('actionsFor', { name: member.displayName })}><MoreVertical /></IconButton></MenuTrigger>
                    <MenuContent>
                      <MenuItem icon={<MessageCircle />} onSelect={() => write(member)}>{t('openChat')}</MenuItem>
                      {myRole === 'owner' && member.role === 'member' && <MenuItem icon={<Shield />} onSelect={() => void setRole(member, 'admin')}>{t('makeAdmin')}</MenuItem>}
                      {myRole === 'owner' && member.role === 'admin' && <MenuItem icon={<ShieldOff />} onSelect={() => void setRole(member, 'member')}>{t('makeMember')}</MenuItem>}
                      {myRole === 'owner' && <MenuItem icon={<Crown />} onSelect={() => setAsking({ kind: 'handOver', member })}>{t('makeOwner')}</MenuItem>}
                      {mayRemove(member) && <MenuItem icon={<UserMinus />} danger onSelect={() => setAsking({ kind: 'remove', member })}>{t('remove')}</MenuItem>}
                    </MenuContent>
                  </MenuRoot>
                ) : <span className="size-10" />}
              </li>
            ))}
          </ul>
          <div className="mt-4 border-t border-line pt-4">
            <Button className="w-full text-danger" disabled={myRole === 'owner' && members.length > 1} onClick={() => setAsking({ kind: 'leave' })}>
              <LogOut aria-hidden className="size-4.5" />{t('leave')}
            </Button>
            {myRole === 'owner' && members.length > 1 && <p className="mt-2 text-center text-sm text-soft">{t('ownerCantLeave')}</p>}
          </div>
        </>
      )}
      {asking?.kind === 'leave' && (
        <Confirm title={t('leaveTitle', { name: face.title })} text={t('leaveText')} action={t('leave')} onConfirm={leave} onClose={() => setAsking(null)} />
      )}
      {asking?.kind === 'remove' && (
        <Confirm
          title={t('removeTitle', { name: asking.member.displayName })} text={t('removeText')} action={t('remove')}
          onConfirm={() => remove(asking.member)} onClose={() => setAsking(null)}
        />
      )}
      {asking?.kind === 'handOver' && (
        <Confirm
          title={t('makeOwnerTitle', { name: asking.member.displayName })} text={t('makeOwnerText')} action={t('makeOwner')}
          onConfirm={() => setRole(asking.member, 'owner')} onClose={() => setAsking(null)}
        />
      )}
    </Dialog>
  );
}

function AddPeople({ room, members, onDone }: { room: Room; members: readonly Member[]; onDone(room: Room | null): void }) {
  const { t } = useTranslation();
  const [people, setPeople] = useState<User[]>([]);
  const [busy, setBusy] = useState(false);
  const add = async () => {
    setBusy(true);
    try {
      onDone(await api.addMembers(room.id, people.map(({ id }) => id)));
    } catch (error) {
      toast((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <Dialog
      open
      onOpenChange={() => onDone(null)}
      title={t('addPeople')}
      footer={<><Button onClick={() => onDone(null)}>{t('cancel')}</Button><Button kind="primary" busy={busy} disabled={people.length === 0} onClick={() => void add()}>{t('add')}</Button></>}
    >
      <PeoplePicker autoFocus chosen={people} onChange={setPeople} without={new Set(members.map(({ userId }) => userId))} />
    </Dialog>
  );
}

function Rename({ room, onDone }: { room: Room; onDone(room: Room | null): void }) {
  const { t } = useTranslation();
  const { register, handleSubmit, setError, formState: { errors, isSubmitting } } = useForm({ defaultValues: { name: room.name ?? '' } });
  const submit = handleSubmit(async ({ name }) => {
    try {
      onDone(await api.renameRoom(room.id, name.trim()));
    } catch (error) {
      setError('name', { message: (error as Error).message });
    }
  });
  return (
    <Dialog
      open
      onOpenChange={() => onDone(null)}
      title={t('rename')}
      footer={<><Button onClick={() => onDone(null)}>{t('cancel')}</Button><Button kind="primary" busy={isSubmitting} onClick={() => void submit()}>{t('save')}</Button></>}
    >
      <form noValidate onSubmit={(event) => void submit(event)}>
        <Field label={t('groupName')} autoFocus error={errors.name?.message} {...register('name', { validate: (name) => validName(name) || t('groupNameRule') })} />
      </form>
    </Dialog>
  );
}
