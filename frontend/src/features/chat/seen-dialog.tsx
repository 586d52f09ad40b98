import { useTranslation } from 'react-i18next';
import { Avatar } from '@/components/ui/avatar';
import { Dialog } from '@/components/ui/dialog';
import type { Member, Message } from '@/protocol';
import { seenBy } from '@/realtime/delivery';

export function SeenDialog({ message, members, onClose }: { message: Message; members: readonly Member[]; onClose(): void }) {
  const { t } = useTranslation();
  const { read, delivered, waiting } = seenBy(message, members);
  const parts: [string, Member[]][] = [[t('readBy'), read], [t('deliveredTo'), delivered], [t('notYet'), waiting]];
  return (
    <Dialog open onOpenChange={onClose} title={t('info')}>
      {parts.filter(([, people], index) => index === 0 || people.length > 0).map(([title, people]) => (
        <section key={title} className="mb-4">
          <h3 className="mb-1 text-sm font-semibold text-soft">{title}</h3>
          {people.length === 0 && <p>{t('nobody')}</p>}
          <ul>
            {people.map((one) => (
              <li key={one.userId} className="flex items-center gap-3 py-1.5">
                <Avatar id={one.userId} name={one.displayName} url={one.avatarUrl} size="sm" />{one.displayName}
              </li>
            ))}
          </ul>
        </section>
      ))}
    </Dialog>
  );
}
