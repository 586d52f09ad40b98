// Every page in both themes and two sizes: axe finds nothing, and there is a picture to look at. Keys reach everything.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { scene } from './scene.mjs';
import {
  artefact, composer, DESKTOP, list, logIn, message, openRoom, phase, PHONE, roomLink, until, useBrowser, useServer,
} from './support.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const WCAG = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

/** `part` is what lies over a page that was checked before. */
async function check(page, name, part = null) {
  await page.evaluate(() => document.fonts.ready);
  await page.screenshot({ path: artefact(`${name}.png`) });
  if (!await page.evaluate(() => 'axe' in window)) await page.evaluate(axe);
  const { violations } = await page.evaluate(({ part, tags }) => window.axe.run(part ?? document, { runOnly: tags }), {
    part, tags: part ? WCAG : [...WCAG, 'best-practice'],
  });
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} — ${failureSummary}`).join(' | ')}`);
  assert.deepEqual(found, [], name);
}

describe('how it looks', () => {
  const world = useServer();
  const browsers = useBrowser();
  let people;
  before(async () => { people = await scene(world); });
  after(() => people?.clients.forEach((client) => client.close()));

  for (const theme of ['light', 'dark']) {
    for (const [size, viewport] of [['desktop', DESKTOP], ['phone', PHONE]]) {
      test(`entrance, ${theme}, ${size}`, async () => {
        const page = await (await browsers.context({ theme, viewport })).newPage();
        await page.goto(`${world.url}/login`);
        await page.getByRole('button', { name: 'Log in', exact: true }).waitFor();
        await check(page, `login-${theme}-${size}`);
        await page.goto(`${world.url}/register`);
        await page.getByRole('button', { name: 'Create account' }).click();
        await page.getByText('Please fill this in').first().waitFor();
        await check(page, `register-${theme}-${size}`);
      });

      test(`rooms and chat, ${theme}, ${size}`, async () => {
        const { alice } = people;
        const page = await browsers.openAs(world, alice, { theme, viewport, ...(size === 'phone' && { hasTouch: true, isMobile: true }) });
        await phase(page, 'online');
        await roomLink(page, 'Bob Brown').waitFor();
        await roomLink(page, 'Erin Evans').waitFor();
        await check(page, `rooms-${theme}-${size}`);

        await page.getByRole('searchbox').fill('order');
        await page.getByRole('region', { name: 'Messages' }).getByRole('button').first().waitFor();
        await check(page, `search-${theme}-${size}`);
        await page.getByRole('button', { name: 'Clear the search' }).click();

        await openRoom(page, 'Team Starling');
        await message(page, '🍰').waitFor();
        await check(page, `chat-${theme}-${size}`);

        await message(page, 'One order for everybody').click({ button: 'right' });
        await page.getByRole('menu').waitFor();
        await check(page, `menu-${theme}-${size}`, '[role=menu]');
        await page.getByRole('menuitem', { name: 'Seen by' }).click();
        await page.getByRole('dialog').waitFor();
        await check(page, `seen-${theme}-${size}`, '[role=dialog]');
        await page.keyboard.press('Escape');

        await page.getByRole('button', { name: 'Emoji' }).click();
        await page.getByRole('gridcell').first().waitFor();
        await check(page, `emoji-${theme}-${size}`, '[role=dialog]');
        await page.keyboard.press('Escape');

        await page.getByRole('button', { name: 'Details', exact: true }).click();
        await page.getByRole('dialog').getByText('Owner', { exact: true }).waitFor();
        await check(page, `details-${theme}-${size}`, '[role=dialog]');
        await page.keyboard.press('Escape');
        await page.getByRole('dialog').waitFor({ state: 'detached' });

        if (size === 'phone') await page.getByRole('link', { name: 'Back to the conversations' }).click();
        for (const [item, title] of [['Settings', 'settings'], ['Keyboard shortcuts', 'shortcuts']]) {
          await page.getByRole('button', { name: /^Account:/ }).click();
          await page.getByRole('menuitem', { name: item }).click();
          await page.getByRole('dialog').waitFor();
          await check(page, `${title}-${theme}-${size}`, '[role=dialog]');
          await page.keyboard.press('Escape');
          await page.getByRole('dialog').waitFor({ state: 'detached' });
        }
        await page.getByRole('button', { name: 'New group' }).click();
        await page.getByRole('dialog').getByLabel('Find people by name').fill('car');
        await page.getByRole('dialog').getByRole('button', { name: /Carol Chen/ }).waitFor();
        await check(page, `new-group-${theme}-${size}`, '[role=dialog]');
      });
    }
  }

  test('German, with its long words, on a phone', async () => {
    const { alice, team } = people;
    const page = await browsers.openAs(world, alice, { viewport: PHONE, locale: 'de-DE', path: `/rooms/${team.id}` });
    await page.getByRole('textbox', { name: 'Nachricht an Team Starling' }).waitFor();
    await message(page, '🍰').waitFor();
    await check(page, 'german-phone');
    await page.goto(`${world.url}/`);
    await page.getByRole('button', { name: /^Konto:/ }).click();
    await page.getByRole('menuitem', { name: 'Einstellungen' }).click();
    await page.getByRole('dialog').waitFor();
    await check(page, 'german-settings-phone', '[role=dialog]');
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    assert.equal(wide, false, 'nothing sticks out');
    await page.getByText('English').click();
    await page.getByRole('dialog').getByText('Settings').waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'en');
  });

  test('a tablet shows the list beside the conversation', async () => {
    const { alice, team } = people;
    const page = await browsers.openAs(world, alice, { viewport: { width: 820, height: 1180 }, path: `/rooms/${team.id}` });
    await message(page, '🍰').waitFor();
    await roomLink(page, 'Sunday walk').waitFor();
    await check(page, 'chat-light-tablet');
  });

  test('the keyboard alone is enough', async () => {
    const { alice, carol, clients } = people;
    const page = await browsers.openAs(world, alice);
    await phase(page, 'online');
    await roomLink(page, 'Team Starling').waitFor();
    const focused = (what) => page.evaluate(() => `${document.activeElement?.id} ${document.activeElement?.getAttribute('aria-label')}`)
      .then((words) => words.includes(what));

    await page.keyboard.press('?');
    await page.getByRole('dialog', { name: 'Keyboard shortcuts' }).waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'detached' });

    await page.keyboard.press('Control+k');
    await until(() => focused('Search people'));
    await page.keyboard.type('Team');
    await page.getByRole('region', { name: 'Conversations' }).waitFor();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await until(() => focused('composer'));
    await message(page, '🍰').waitFor();
    await page.keyboard.press('Alt+ArrowDown');
    await until(async () => !(await page.url()).endsWith(String(people.team.id)));
    await page.keyboard.press('Alt+ArrowUp');
    await until(async () => (await page.url()).endsWith(String(people.team.id)));
    await message(page, '🍰').waitFor();

    // Into the messages, to one of them, its menu, a reply, and back.
    await list(page).focus();
    await page.keyboard.press('ArrowUp');
    await until(() => focused('🍰'));
    await page.keyboard.press('ArrowUp');
    await until(() => focused('I baked'));
    await page.keyboard.press('Enter');
    await page.getByRole('menu').waitFor();
    await page.keyboard.press('Escape');
    await page.getByRole('menu').waitFor({ state: 'detached' });
    await message(page, 'I baked').focus();
    await page.keyboard.press('r');
    await page.getByText('Reply to Frank Fischer').waitFor();
    await until(() => focused('composer'));
    await page.keyboard.press('Escape');
    await page.getByText('Reply to Frank Fischer').waitFor({ state: 'detached' });
    assert.equal(await composer(page).inputValue(), '');

    // What arrives is read out.
    await clients.get(carol).send(people.team.id, 'Hear, hear');
    await page.locator('[aria-live="polite"]').filter({ hasText: 'Carol Chen: Hear, hear' }).waitFor({ state: 'attached' });
  });

  test('a system notification tells what arrives in the background, if it was asked for', async () => {
    const { alice, bob, direct, clients } = people;
    const context = await browsers.context({ permissions: ['notifications'] });
    await context.addInitScript(() => {
      window.told = [];
      window.Notification = class { static permission = 'granted'; static requestPermission = async () => 'granted'; constructor(title, options) { window.told.push([title, options.body]); } };
      document.hasFocus = () => false;
    });
    await logIn(context, world, alice);
    const page = await context.newPage();
    await page.goto(`${world.url}/`);
    await phase(page, 'online');
    await page.getByRole('button', { name: /^Account:/ }).click();
    await page.getByRole('menuitem', { name: 'Settings' }).click();
    await page.getByRole('checkbox', { name: /Show notifications/ }).check();
    await page.keyboard.press('Escape');
    await clients.get(bob).send(direct.id, 'Psst');
    await page.waitForFunction(() => window.told.length === 1);
    assert.deepEqual(await page.evaluate(() => window.told), [['Bob Brown', 'Psst']]);
  });
});
