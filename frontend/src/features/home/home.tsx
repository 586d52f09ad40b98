import { useQueryClient } from '@tanstack/react-query';
import { lazy, Suspense, useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Redirect, Route, Switch, useLocation, useRoute } from 'wouter';
import { session } from '@/auth/sessions';
import { toast } from '@/components/ui/toast';
import { Chat } from '@/features/chat/chat';
import { roomTitle } from '@/features/rooms/titles';
import { Sidebar } from '@/features/rooms/sidebar';
import { Muted } from '@/lib/settings';
import { useStore } from '@/lib/use-store';
import { Realtime } from '@/realtime/realtime';
import { ConnectionBanner } from './connection-banner';
import { type Here, HereContext } from './context';
import { announceIncoming, useTitleBadge } from './notifications';
import { useShortcuts } from './shortcuts';
import { Welcome } from './welcome';

const ShortcutHelp = lazy(() => import('./shortcut-help').then(({ ShortcutHelp }) => ({ default: ShortcutHelp })));
const NewGroup = lazy(() => import('@/features/people/new-group').then(({ NewGroup }) => ({ default: NewGroup })));
const Settings = lazy(() => import('@/features/settings/settings').then(({ Settings }) => ({ default: Settings })));

export type Panel = 'help' | 'group' | 'settings' | null;

/** Everything behind the log-in. */
export function Home() {
  const queries = useQueryClient();
  const [here, setHere] = useState<Here | null>(null);
  const user = useStore(session)?.user;
  const userId = user?.id;
  useEffect(() => {
    if (!user) return undefined;
    const realtime = new Realtime(user, queries);
    setHere({ realtime, muted: new Muted(user.id) });
    realtime.start();
    return () => realtime.stop();
    // A session of its own for each user, not for each change of the profile.
  }, [userId, queries]);
  return here && <HereContext value={here}><Frame here={here} /></HereContext>;
}

function Frame({ here }: { here: Here }) {
  const { t } = useTranslation();
  const [, navigate] = useLocation();
  const [inRoom, params] = useRoute('/rooms/:id');
  const roomId = inRoom ? Number(params.id) : null;
  const [panel, setPanel] = useState<Panel>(null);
  const search = useRef<HTMLInputElement>(null);
  const { realtime, muted } = here;

  useEffect(() => { realtime.active.set(roomId); }, [realtime, roomId]);
  useTitleBadge();
  useShortcuts({ openPanel: setPanel, search });

  useEffect(() => {
    realtime.listeners = {
      incoming: (message, room) => {
        const sender = realtime.people.get().get(message.senderId)?.displayName ?? '';
        announceIncoming({ message, room, sender, muted: muted.get(), t, open: () => navigate(`/rooms/${message.roomId}`) });
      },
      removed: (room, id) => {
        if (room) toast(t('removedFrom', { name: roomTitle(room, realtime.me) || t('deletedUser') }));
        if (realtime.active.get() === id) navigate('/', { replace: true });
      },
    };
  }, [realtime, muted, navigate, t]);

  return (
    <div className="flex h-dvh flex-col">
      {roomId !== null && (
        <a
          href="#composer"
          className="sr-only focus:not-sr-only focus:fixed focus:start-3 focus:top-3 focus:z-50 focus:rounded-xl focus:bg-accent focus:px-4 focus:py-2 focus:text-on-accent"
        >
          {t('skipToMessages')}
        </a>
      )}
      <ConnectionBanner />
      <main className="flex min-h-0 flex-1">
        <Sidebar roomId={roomId} openPanel={setPanel} searchRef={search} hiddenOnPhone={roomId !== null} />
        <div className={roomId === null ? 'hidden min-w-0 flex-1 bg-surface md:grid' : 'flex min-w-0 flex-1 bg-surface'}>
          <Switch>
            <Route path="/rooms/:id">{({ id }) => <Chat key={id} roomId={Number(id)} />}</Route>
            <Route path="/"><Welcome /></Route>
            <Route><Redirect to="/" replace /></Route>
          </Switch>
        </div>
      </main>
      <Suspense fallback={null}>
        {panel === 'help' && <ShortcutHelp onClose={() => setPanel(null)} />}
        {panel === 'group' && <NewGroup onClose={() => setPanel(null)} />}
        {panel === 'settings' && <Settings onClose={() => setPanel(null)} />}
      </Suspense>
    </div>
  );
}
