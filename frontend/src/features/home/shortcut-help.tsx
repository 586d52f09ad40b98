import { useTranslation } from 'react-i18next';
import { Dialog } from '@/components/ui/dialog';

const KEYS = [
  ['keySearch', 'Ctrl K'],
  ['keySearchRoom', 'Ctrl Shift F'],
  ['keyNext', 'Alt ↓'],
  ['keyPrevious', 'Alt ↑'],
  ['keyNewGroup', 'Alt G'],
  ['keySend', 'Enter'],
  ['keyNewLine', 'Shift Enter'],
  ['keyEditLast', '↑'],
  ['keyList', '↑ ↓'],
  ['keyReply', 'R'],
  ['keyActions', 'Enter'],
  ['keyEscape', 'Esc'],
  ['keyHelp', '? / Ctrl /'],
] as const;

export function ShortcutHelp({ onClose }: { onClose(): void }) {
  const { t } = useTranslation();
  return (
    <Dialog open onOpenChange={onClose} title={t('shortcuts')}>
      <dl className="divide-y divide-line">
        {KEYS.map(([name, keys]) => (
          <div key={name} className="flex items-center justify-between gap-4 py-2">
            <dt>{t(name)}</dt>
            <dd className="shrink-0">
              {keys.split(' ').map((key) => (key === '/' ? <span key={key}> / </span>
                : <kbd key={key} className="ms-1 rounded-md border border-line bg-raised px-2 py-0.5 font-sans text-sm text-soft">{key}</kbd>))}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
