import clsx from 'clsx';
import { CloudOff, LoaderCircle, Wifi } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useStore } from '@/lib/use-store';
import type { Phase } from '@/realtime/link';
import { useRealtime } from './context';

const BACK_SHOWN_MS = 3000;
/** A connection that comes at once needs no words. */
const QUIET_MS = 700;

/** Says when there is no connection, and when it is back. */
export function ConnectionBanner() {
  const { t } = useTranslation();
  const phase = useStore(useRealtime().link.phase);
  const [shown, setShown] = useState<Phase | 'back' | null>(null);
  const lost = useRef(false);

  useEffect(() => {
    if (phase === 'online') {
      if (!lost.current) return setShown(null);
      lost.current = false;
      setShown('back');
      const timer = setTimeout(() => setShown(null), BACK_SHOWN_MS);
      return () => clearTimeout(timer);
    }
    if (phase !== 'connecting') lost.current = true;
    const timer = setTimeout(() => setShown(phase), phase === 'connecting' ? QUIET_MS : 0);
    return () => clearTimeout(timer);
  }, [phase]);

  const words = { connecting: t('connecting'), reconnecting: t('reconnecting'), offline: t('offline'), back: t('backOnline'), online: '' };
  const Icon = shown === 'offline' ? CloudOff : shown === 'back' ? Wifi : LoaderCircle;
  return (
    <div role="status" data-phase={phase}>
      {shown && (
        <p
          className={clsx(
            'flex animate-fade items-center justify-center gap-2 px-4 py-1.5 text-center text-sm font-medium',
            shown === 'back' ? 'bg-good text-white dark:text-[#06281a]' : 'bg-tint text-ink',
          )}
        >
          <Icon aria-hidden className={clsx('size-4 shrink-0', Icon === LoaderCircle && 'animate-spin')} />
          {words[shown]}
        </p>
      )}
    </div>
  );
}
