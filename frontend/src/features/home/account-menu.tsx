import { Keyboard, LogOut, Settings, UserPlus } from 'lucide-react';
import { useTranslation } from 'react-i18next';
import { useLocation } from 'wouter';
import { accounts, logOut, session, switchTo } from '@/auth/sessions';
import { Avatar } from '@/components/ui/avatar';
import { MenuContent, MenuItem, MenuLabel, MenuLine, MenuRoot, MenuTrigger } from '@/components/ui/menu';
import { useStore } from '@/lib/use-store';
import type { Panel } from './home';

export function AccountMenu({ openPanel }: { openPanel(panel: Panel): void }) {
  const { t } = useTranslation();
  const [, navigate] = useLocation();
  const user = useStore(session)?.user;
  if (!user) return null;
  const others = accounts().filter(({ id }) => id !== user.id);
  const change = (id: number | null) => {
    navigate(id === null ? '/login' : '/', { replace: true });
    switchTo(id);
  };
  return (
    <MenuRoot>
      <MenuTrigger
        aria-label={t('account', { name: user.displayName })}
        title={t('account', { name: user.displayName })}
        className="rounded-full p-1 hover:bg-hover"
      >
        <Avatar id={user.id} name={user.displayName} url={user.avatarUrl} size="sm" />
      </MenuTrigger>
      <MenuContent align="start">
        <MenuLabel>
          <span className="block font-semibold text-ink">{user.displayName}</span>
          <span>@{user.username}</span>
        </MenuLabel>
        <MenuLine />
        <MenuItem icon={<Settings />} onSelect={() => openPanel('settings')}>{t('settings')}</MenuItem>
        <MenuItem icon={<Keyboard />} onSelect={() => openPanel('help')}>{t('shortcuts')}</MenuItem>
        <MenuLine />
        {others.map((one) => (
          <MenuItem
            key={one.id}
            icon={<Avatar id={one.id} name={one.displayName} url={one.avatarUrl} size="sm" />}
            onSelect={() => change(one.id)}
          >
            {t('switchAccount', { name: one.displayName })}
          </MenuItem>
        ))}
        <MenuItem icon={<UserPlus />} onSelect={() => change(null)}>{t('addAccount')}</MenuItem>
        <MenuItem icon={<LogOut />} onSelect={() => void logOut()}>{t('logOut')}</MenuItem>
      </MenuContent>
    </MenuRoot>
  );
}
