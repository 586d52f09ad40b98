import { ExternalLink, MessagesSquare } from 'lucide-react';
import { useTranslation } from 'react-i18next';
import { session } from '@/auth/sessions';
import { Empty } from '@/components/ui/states';
import { demoUsers } from '@/lib/demo';
import { useStore } from '@/lib/use-store';

/** Beside the list when no conversation is open. */
export function Welcome() {
  const { t } = useTranslation();
  return (
    <div className="m-auto">
      <Empty icon={<MessagesSquare />} title={t('chooseRoom')}>
        <p>{t('chooseRoomHint', { keys: 'Ctrl K' })}</p>
        <SecondWindow />
      </Empty>
    </div>
  );
}

/** On a demo server: the shortest way to somebody who answers. */
export function SecondWindow() {
  const { t } = useTranslation();
  const me = useStore(session)?.user;
  const other = demoUsers.find((one) => one.username !== me?.username);
  if (!other || !demoUsers.some((one) => one.username === me?.username)) return null;
  const name = other.displayName.split(' ')[0] ?? '';
  return (
    <section className="mt-6 rounded-2xl border border-line bg-panel p-4 text-start">
      <h3 className="font-semibold text-ink">{t('demoSecondTitle')}</h3>
      <p className="mt-1 mb-3 text-sm">{t('demoSecond', { name })}</p>
      <a
        href={`/login?as=${other.username}`}
        target="_blank"
        rel="noopener"
        className="inline-flex min-h-10 items-center gap-2 rounded-xl bg-accent px-4 font-medium text-on-accent hover:brightness-110"
      >
        {t('demoOpenAs', { name })} <ExternalLink aria-hidden className="size-4" />
      </a>
    </section>
  );
}
