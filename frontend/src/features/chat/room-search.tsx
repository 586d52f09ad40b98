import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Dialog } from '@/components/ui/dialog';
import { INPUT } from '@/components/ui/field';
import { useDebounced } from '@/lib/use-debounced';
import { useChat } from './context';
import { MessageHits } from './message-hits';

export function RoomSearch({ onClose }: { onClose(): void }) {
  const { t } = useTranslation();
  const { room, title, jump } = useChat();
  const [query, setQuery] = useState('');
  const words = useDebounced(query.trim(), 200);
  return (
    <Dialog open wide onOpenChange={onClose} title={t('searchRoom', { name: title })}>
      <input
        type="search" autoFocus value={query} onChange={(event) => setQuery(event.target.value)}
        aria-label={t('searchRoom', { name: title })} className={INPUT} maxLength={200}
      />
      <div className="-mx-3 mt-3 min-h-60">
        {words
          ? <MessageHits query={words} roomId={room.id} onChoose={(message) => { onClose(); jump(message.seq); }} />
          : <p className="px-3 py-1 text-soft">{t('searchHint')}</p>}
      </div>
    </Dialog>
  );
}
