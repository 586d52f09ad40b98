import clsx from 'clsx';
import { CheckCheck, Copy, Ellipsis, Pencil, Reply, SmilePlus, Trash2 } from 'lucide-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { IconButton } from '@/components/ui/button';
import { MenuContent, MenuItem, MenuLine, MenuRoot, MenuTrigger } from '@/components/ui/menu';
import { toast } from '@/components/ui/toast';
import { useRealtime } from '@/features/home/context';
import type { Message } from '@/protocol';
import { useChat } from './context';
import { EmojiPopover } from './emoji';

interface Props {
  message: Message;
  mine: boolean;
  open: boolean;
  onOpenChange(open: boolean): void;
}

/** What can be done with a message: shown while it has the pointer or the focus. */
export function MessageActions({ message, mine, open, onOpenChange }: Props) {
  const { t } = useTranslation();
  const realtime = useRealtime();
  const { room, members, reply, edit, remove, showSeen } = useChat();
  const [picking, setPicking] = useState(false);
  const role = members.find((one) => one.userId === realtime.me)?.role;
  const mayDelete = mine || (room.roomType === 'group' && (role === 'owner' || role === 'admin'));
  const react = (emoji: string) => { realtime.react(message, emoji).catch((error: Error) => toast(error.message)); };
  return (
    <div
      className={clsx(
        'flex h-9 shrink-0 items-center self-center rounded-xl border border-line bg-raised shadow-sm transition-opacity [&_button]:size-8',
        'group-focus-within/row:visible group-focus-within/row:opacity-100 group-hover/row:visible group-hover/row:opacity-100',
        open || picking ? 'visible opacity-100' : 'invisible opacity-0',
      )}
    >
      <EmojiPopover quick label={t('addReaction')} onChoose={react} onOpenChange={setPicking}>
        <IconButton label={t('addReaction')}><SmilePlus /></IconButton>
      </EmojiPopover>
      <IconButton label={t('reply')} onClick={() => reply(message)} className="max-sm:hidden"><Reply className="rtl:-scale-x-100" /></IconButton>
      <MenuRoot open={open} onOpenChange={onOpenChange}>
        <MenuTrigger asChild>
          <IconButton label={t('messageActions')}><Ellipsis /></IconButton>
        </MenuTrigger>
        <MenuContent label={t('messageActions')}>
          <MenuItem icon={<Reply />} onSelect={() => reply(message)}>{t('reply')}</MenuItem>
          <MenuItem
            icon={<Copy />}
            onSelect={() => { navigator.clipboard?.writeText(message.content).then(() => toast(t('copied')), () => toast(t('somethingWrong'))); }}
          >
            {t('copy')}
          </MenuItem>
          {mine && room.roomType === 'group' && <MenuItem icon={<CheckCheck />} onSelect={() => showSeen(message)}>{t('info')}</MenuItem>}
          {mine && <MenuItem icon={<Pencil />} onSelect={() => edit(message)}>{t('edit')}</MenuItem>}
          {mayDelete && (
            <>
              <MenuLine />
              <MenuItem icon={<Trash2 />} danger onSelect={() => remove(message)}>{t('delete')}</MenuItem>
            </>
          )}
        </MenuContent>
      </MenuRoot>
    </div>
  );
}
