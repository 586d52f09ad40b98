import { Eye, EyeOff, MessagesSquare } from 'lucide-react';
import { useEffect, useState } from 'react';
import { useForm } from 'react-hook-form';
import { useTranslation } from 'react-i18next';
import { Link, useLocation } from 'wouter';
import { accounts, adopt, notice, switchTo } from '@/auth/sessions';
import { Avatar } from '@/components/ui/avatar';
import { Button, IconButton } from '@/components/ui/button';
import { Field } from '@/components/ui/field';
import { type DemoUser, demoUsers, wantedDemoUser } from '@/lib/demo';
import { ApiError, call } from '@/lib/http';
import { language } from '@/lib/settings';
import { useStore } from '@/lib/use-store';
import type { Authenticated } from '@/protocol';

interface Form {
  username: string;
  email: string;
  displayName: string;
  password: string;
}

const LEAVE = new Set(['/login', '/register']);

/** Log in, or make an account. */
export function Entrance() {
  const { t } = useTranslation();
  const [path, navigate] = useLocation();
  const registers = path === '/register';
  const why = useStore(notice);
  const [failure, setFailure] = useState<string | null>(null);
  const [shown, setShown] = useState(false);
  const [busyAs, setBusyAs] = useState<string | null>(null);
  const { register, handleSubmit, setError, formState: { errors, isSubmitting }, clearErrors } = useForm<Form>({
    defaultValues: { username: '', email: '', displayName: '', password: '' },
  });

  useEffect(() => { document.title = `${registers ? t('signUp') : t('logIn')} · Starling`; }, [registers, t]);

  const enter = (answer: Authenticated) => {
    if (LEAVE.has(path) || wantedDemoUser()) navigate('/', { replace: true });
    adopt(answer);
  };

  const explain = (error: unknown) => {
    if (!(error instanceof ApiError)) return setFailure(t('somethingWrong'));
    if (error.code === 'network') return setFailure(t('networkError'));
    if (error.status === 401) return setFailure(t('wrongPassword'));
    const fields = Object.entries(error.fields);
    for (const [name, message] of fields) {
      if (name in { username: 1, email: 1, displayName: 1, password: 1 }) setError(name as keyof Form, { message: message ?? '' });
    }
    setFailure(fields.length > 0 ? null : error.message);
  };

  const logInAs = async (user: DemoUser) => {
    setBusyAs(user.username);
    setFailure(null);
    try {
      enter(await call<Authenticated>('POST', '/auth/login', { username: user.username, password: user.password }));
    } catch (error) {
      explain(error);
      setBusyAs(null);
    }
  };

  useEffect(() => {
    const wanted = wantedDemoUser();
    if (wanted) void logInAs(wanted);
    // Once, when the window opens.
  }, []);

  const submit = handleSubmit(async ({ username, email, displayName, password }) => {
    setFailure(null);
    try {
      enter(registers
        ? await call<Authenticated>('POST', '/auth/register', {
          username, email, password, ...(displayName.trim() ? { displayName: displayName.trim() } : {}),
        })
        : await call<Authenticated>('POST', '/auth/login', { username, password }));
    } catch (error) {
      explain(error);
    }
  });

  const others = accounts();
  return (
    <div className="h-full overflow-y-auto bg-ground md:grid md:grid-cols-[minmax(0,5fr)_minmax(0,6fr)]">
      <header className="sheen flex flex-col justify-between gap-6 p-6 text-white md:min-h-full md:p-12">
        <p className="flex items-center gap-3 text-lg font-semibold"><MessagesSquare aria-hidden className="size-7" /> Starling</p>
        <p className="hidden max-w-[14ch] text-5xl leading-[1.08] font-semibold tracking-tight text-balance md:block">{t('tagline')}</p>
        <LanguageChoice />
      </header>
      <main className="mx-auto grid w-full max-w-md content-center gap-6 px-5 py-8 md:min-h-full md:py-12">
        <div>
          <h1 className="text-2xl font-semibold tracking-tight">{registers ? t('signUpTitle') : t('logInTitle')}</h1>
          {why && <p role="status" className="mt-3 rounded-xl bg-tint px-4 py-3">{why === 'revoked' ? t('sessionRevoked') : t('sessionEnded')}</p>}
        </div>

        {demoUsers.length > 0 && !registers && (
          <section aria-labelledby="demo" className="rounded-2xl border border-line bg-panel p-4">
            <h2 id="demo" className="font-semibold">{t('demoTitle')}</h2>
            <p className="mt-1 text-sm text-soft">{t('demoHint')}</p>
            <ul className="mt-3 grid grid-cols-2 gap-2">
              {demoUsers.map((user, index) => (
                <li key={user.username}>
                  <button
                    type="button"
                    disabled={busyAs !== null}
                    onClick={() => void logInAs(user)}
                    className="flex w-full items-center gap-2.5 rounded-xl border border-line bg-raised p-2 text-start transition hover:border-accent disabled:opacity-60"
                  >
                    <Avatar id={index + 1} name={user.displayName} size="sm" />
                    <span className="min-w-0 truncate text-sm font-medium">{t('demoLogIn', { name: user.displayName.split(' ')[0] })}</span>
                  </button>
                </li>
              ))}
            </ul>
          </section>
        )}

        <form noValidate onSubmit={(event) => void submit(event)} className="grid gap-4">
          <Field
            label={registers ? t('username') : t('usernameOrEmail')}
            autoComplete="username"
            autoCapitalize="none"
            spellCheck={false}
            hint={registers ? t('usernameRule') : undefined}
            error={errors.username?.message}
            {...register('username', {
              required: t('required'),
              ...(registers ? { pattern: { value: /^[a-zA-Z0-9_.-]{3,32}$/, message: t('usernameRule') } } : {}),
            })}
          />
          {registers && (
            <>
              <Field
                label={t('email')} type="email" autoComplete="email" error={errors.email?.message}
                {...register('email', { required: t('required'), pattern: { value: /^[^@\s]+@[^@\s]+$/, message: t('emailRule') } })}
              />
              <Field
                label={t('displayName')} aside={t('optional')} autoComplete="name" error={errors.displayName?.message}
                {...register('displayName', { validate: (value) => [...value.trim()].length <= 64 || t('tooLong') })}
              />
            </>
          )}
          <Field
            label={t('password')}
            type={shown ? 'text' : 'password'}
            autoComplete={registers ? 'new-password' : 'current-password'}
            hint={registers ? t('passwordRule') : undefined}
            error={errors.password?.message}
            end={(
              <IconButton label={shown ? t('hidePassword') : t('showPassword')} onClick={() => setShown(!shown)}>
                {shown ? <EyeOff /> : <Eye />}
              </IconButton>
            )}
            {...register('password', {
              required: t('required'),
              ...(registers ? {
                validate: (value) => ([...value].length < 8 ? t('passwordRule')
                  : new TextEncoder().encode(value).length <= 72 || t('passwordTooLong')),
              } : {}),
            })}
          />
          {failure && <p role="alert" className="rounded-xl bg-danger-tint px-4 py-3 text-danger">{failure}</p>}
          <Button type="submit" kind="primary" busy={isSubmitting} className="min-h-12 text-base">
            {registers ? t('signUp') : t('logIn')}
          </Button>
        </form>

        <p className="text-soft">
          {registers ? t('haveAccount') : t('noAccount')}{' '}
          <Link
            href={registers ? '/login' : '/register'}
            onClick={() => { setFailure(null); clearErrors(); }}
            className="font-medium text-accent underline underline-offset-4"
          >
            {registers ? t('logIn') : t('signUp')}
          </Link>
        </p>
        {others.length > 0 && (
          <ul className="grid gap-2 border-t border-line pt-4">
            {others.map((user) => (
              <li key={user.id}>
                <button
                  type="button"
                  className="flex w-full items-center gap-3 rounded-xl p-2 text-start hover:bg-hover"
                  onClick={() => { navigate('/', { replace: true }); switchTo(user.id); }}
                >
                  <Avatar id={user.id} name={user.displayName} url={user.avatarUrl} size="sm" />
                  {t('switchAccount', { name: user.displayName })}
                </button>
              </li>
            ))}
          </ul>
        )}
      </main>
    </div>
  );
}

function LanguageChoice() {
  const { t } = useTranslation();
  const chosen = useStore(language);
  return (
    <div role="group" aria-label={t('language')} className="flex gap-1 max-md:absolute max-md:end-4 max-md:top-5">
      {([['en', 'English'], ['de', 'Deutsch']] as const).map(([code, name]) => (
        <button
          key={code}
          type="button"
          lang={code}
          aria-pressed={chosen === code}
          onClick={() => language.set(code)}
          className="rounded-lg px-2.5 py-1 text-sm text-white outline-white hover:bg-white/15 aria-pressed:bg-white/20"
        >
          {name}
        </button>
      ))}
    </div>
  );
}
