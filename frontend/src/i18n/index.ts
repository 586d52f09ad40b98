import i18next from 'i18next';
import { initReactI18next } from 'react-i18next';
import { language, type Language } from '@/lib/settings';
import { en } from './en';

/** English comes with the app; others are loaded when they are chosen. */
const others: Record<Exclude<Language, 'en'>, () => Promise<Record<string, string>>> = {
  de: () => import('./de').then(({ de }) => de),
};

async function apply(): Promise<void> {
  const chosen = language.get();
  if (chosen !== 'en' && !i18next.hasResourceBundle(chosen, 'translation')) {
    i18next.addResourceBundle(chosen, 'translation', await others[chosen]());
  }
  await i18next.changeLanguage(chosen);
  document.documentElement.lang = chosen;
  document.documentElement.dir = i18next.dir(chosen);
}

/** Ready when the texts of the chosen language are there. */
export async function startI18n(): Promise<void> {
  await i18next.use(initReactI18next).init({
    lng: 'en',
    fallbackLng: 'en',
    resources: { en: { translation: en } },
    interpolation: { escapeValue: false },
    returnNull: false,
  });
  language.subscribe(() => void apply());
  await apply().catch(() => undefined);
}
