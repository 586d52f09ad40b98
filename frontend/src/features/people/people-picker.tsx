import { useQuery } from '@tanstack/react-query';
import { Check, X } from 'lucide-react';
import { useId, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Avatar } from '@/components/ui/avatar';
import { INPUT } from '@/components/ui/field';
import { Spinner } from '@/components/ui/states';
import { api } from '@/lib/api';
import { useDebounced } from '@/lib/use-debounced';
import type { User } from '@/protocol';

interface Props {
  chosen: readonly User[];
  onChange(chosen: User[]): void;
  /** Not offered: they are in already. */
  without: ReadonlySet<number>;
  autoFocus?: boolean;
}

/** Finds people by name and collects them. */
export function PeoplePicker({ chosen, onChange, without, autoFocus = false }: Props) {
  const { t } = useTranslation();
  const id = useId();
  const [query, setQuery] = useState('');
  const words = useDebounced(query.trim(), 200);
  const found = useQuery({ queryKey: ['people', words], queryFn: () => api.findUsers(words), enabled: words.length > 0, staleTime: 10_000 });
  const offered = (found.data ?? []).filter((user) => !without.has(user.id));
  const has = (user: User) => chosen.some((one) => one.id === user.id);
  const toggle = (user: User) => {
    onChange(has(user) ? chosen.filter((one) => one.id !== user.id) : [...chosen, user]);
    setQuery('');
  };
  return (
    <div>
      {chosen.length > 0 && (
        <ul className="mb-2 flex flex-wrap gap-1.5">
          {chosen.map((user) => (
            <li key={user.id} className="flex animate-rise items-center gap-1.5 rounded-full bg-tint ps-1 pe-0.5 text-sm">
              <Avatar id={user.id} name={user.displayName} url={user.avatarUrl} size="sm" />
              {user.displayName}
              <button type="button" aria-label={t('removePerson', { name: user.displayName })} onClick={() => toggle(user)} className="grid size-8 place-items-center rounded-full hover:bg-black/10">
                <X aria-hidden className="size-4" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <label htmlFor={id} className="mb-1 block text-sm font-medium">{t('findPeople')}</label>
      <input
        id={id} type="search" autoComplete="off" autoFocus={autoFocus} value={query} className={INPUT}
        onChange={(event) => setQuery(event.target.value)}
        onKeyDown={(event) => {
          if (event.key !== 'Enter') return;
          event.preventDefault();
          const first = offered[0];
          if (first) toggle(first);
        }}
      />
      <div className="-mx-2 mt-2 min-h-44">
        {!words && <p className="px-2 py-1 text-sm text-soft">{t('findPeopleHint')}</p>}
        {words && found.isPending && <Spinner />}
        {words && found.isSuccess && offered.length === 0 && <p className="px-2 py-1 text-sm text-soft">{t('nothingFound', { query: words })}</p>}
        <ul>
          {offered.map((user) => (
            <li key={user.id}>
              <button type="button" aria-pressed={has(user)} onClick={() => toggle(user)} className="flex w-full items-center gap-3 rounded-xl px-2 py-2 text-start hover:bg-hover">
                <Avatar id={user.id} name={user.displayName} url={user.avatarUrl} size="sm" />
                <span className="min-w-0 flex-1 truncate">{user.displayName} <span className="text-soft">@{user.username}</span></span>
                {has(user) && <Check aria-hidden className="size-5 text-accent" />}
              </button>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}
