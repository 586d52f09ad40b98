import clsx from 'clsx';
import { Check, CheckCheck, CircleAlert, Clock } from 'lucide-react';
import { useTranslation } from 'react-i18next';
import type { Delivery } from '@/realtime/delivery';

const ICONS = { sending: Clock, failed: CircleAlert, sent: Check, delivered: CheckCheck, read: CheckCheck };

/** Clock, check, double check, blue double check, alert. */
export function DeliveryMark({ state }: { state: Delivery }) {
  const { t } = useTranslation();
  const Icon = ICONS[state];
  return (
    <Icon
      role="img"
      aria-label={t(state)}
      data-state={state}
      className={clsx('size-4 shrink-0', state === 'read' ? 'text-seen' : state === 'failed' ? 'text-danger' : 'text-soft')}
    />
  );
}
