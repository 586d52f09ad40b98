import { createRoot } from 'react-dom/client';
import { accounts, session, switchTo } from './auth/sessions';
import { App } from './app/app';
import { loadEntrance, loadHome } from './app/parts';
import { startI18n } from './i18n';
import { wantedDemoUser } from './lib/demo';
import './index.css';

// A window that was opened for a demo person shows that person, whoever else is logged in here.
const wanted = wantedDemoUser();
if (wanted) switchTo(accounts().find((one) => one.username === wanted.username)?.id ?? null);

// What comes first on the screen is fetched beside the texts, not after them.
void (session.get() ? loadHome() : loadEntrance());

const root = document.getElementById('root');
if (root) void startI18n().then(() => createRoot(root).render(<App />));
