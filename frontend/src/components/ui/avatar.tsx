import clsx from 'clsx';
import { Users } from 'lucide-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { colourOf, initials } from '@/lib/names';
import type { PresenceStatus } from '@/protocol';

const SIZES = { sm: 'size-8 text-xs', md: 'size-11 text-[15px]', lg: 'size-16 text-xl' };
const DOTS: Record<PresenceStatus, string> = {
  online: 'bg-good', away: 'bg-wait', offline: 'bg-panel border-2 border-field',
};

interface Props {
  /** Decides the colour, which stays the same wherever somebody appears. */
  id: number;
  name: string;
  url?: string | null;
  group?: boolean;
  status?: PresenceStatus;
  size?: keyof typeof SIZES;
}

export function Avatar({ id, name, url, group = false, status, size = 'md' }: Props) {
  const { t } = useTranslation();
  const [broken, setBroken] = useState(false);
  const words = { online: t('online'), away: t('away'), offline: t('offlineStatus') };
  return (
    <span className={clsx('relative inline-block shrink-0', SIZES[size])}>
      <span
        aria-hidden
        className={clsx(
          'grid size-full place-items-center overflow-hidden font-semibold text-white select-none',
          group ? 'rounded-[32%]' : 'rounded-full', `avatar-${colourOf(id)}`,
        )}
      >
        {url && !broken
          ? <img src={url} alt="" className="size-full object-cover" referrerPolicy="no-referrer" onError={() => setBroken(true)} />
          : initials(name) || <Users className="size-1/2" />}
      </span>
      {status && (
        <span className="absolute -end-0.5 -bottom-0.5 rounded-full bg-panel p-0.5">
          <span role="img" aria-label={words[status]} className={clsx('block size-2.5 rounded-full', DOTS[status])} />
        </span>
      )}
    </span>
  );
}
