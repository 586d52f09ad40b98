// Groups: made, changed, left.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { composer, mark, message, openRoom, phase, roomLink, useBrowser, useServer, write } from './support.mjs';

describe('a group', () => {
  const world = useServer();
  const browsers = useBrowser();

  const details = (page) => page.getByRole('button', { name: 'Details', exact: true }).click();
  const member = (page, name) => page.getByRole('dialog', { name: 'Details' }).getByRole('listitem').filter({ hasText: name });
  async function manage(page, name, action) {
    await page.getByRole('button', { name: `Actions for ${name}` }).click();
    await page.getByRole('menuitem', { name: action, exact: true }).click();
  }

  test('is made, named, filled and emptied; everybody sees it at once', async () => {
    const [alice, bob, carol] = await Promise.all(['Alice', 'Bob', 'Carol'].map((name) =>
      world.person({ displayName: `${name} of Groups`, username: `${name}.${process.pid}` })));
    const [one, two] = await Promise.all([browsers.openAs(world, alice), browsers.openAs(world, bob)]);
    await Promise.all([phase(one, 'online'), phase(two, 'online')]);

    await one.getByRole('button', { name: 'New group' }).click();
    await one.getByRole('button', { name: 'Create group' }).click();
    await one.getByText('1 to 100 characters').waitFor();
    await one.getByLabel('Group name').fill('Gardeners');
    await one.getByLabel('Find people by name').fill(`bob.${process.pid}`);
    await one.getByRole('dialog').getByRole('button', { name: /Bob of Groups/ }).click();
    await one.getByRole('button', { name: 'Create group' }).click();
    await composer(one).waitFor();
    await openRoom(two, 'Gardeners');

    await write(one, 'Welcome');
    await message(two, 'Welcome').waitFor();
    await mark(one, 'Welcome', 'read').waitFor();
    await one.getByRole('button', { name: 'Seen by everyone' }).click();
    await one.getByRole('dialog').getByText('Bob of Groups').waitFor();
    await one.keyboard.press('Escape');

    await details(one);
    await one.getByRole('button', { name: 'Add people' }).click();
    await one.getByLabel('Find people by name').fill(`carol.${process.pid}`);
    await one.getByRole('dialog').getByRole('button', { name: /Carol of Groups/ }).click();
    await one.getByRole('button', { name: 'Add', exact: true }).click();
    await member(one, 'Carol of Groups').waitFor();
    await two.getByText('3 members').waitFor();

    await manage(one, 'Bob of Groups', 'Make admin');
    await member(one, 'Bob of Groups').getByText('Admin', { exact: true }).waitFor();
    await one.getByRole('button', { name: 'Rename' }).click();
    await one.getByLabel('Group name').fill('Tree climbers');
    await one.getByRole('button', { name: 'Save' }).click();
    await roomLink(two, 'Tree climbers').waitFor();

    // An admin removes a member, whose window leaves the room at once.
    const three = await browsers.openAs(world, carol);
    await openRoom(three, 'Tree climbers');
    await phase(three, 'online');
    await details(two);
    await manage(two, 'Carol of Groups', 'Remove');
    await two.getByRole('alertdialog').getByRole('button', { name: 'Remove' }).click();
    await three.getByText('You are no longer in Tree climbers.').first().waitFor();
    await three.getByText('No conversations yet').waitFor();
    await two.keyboard.press('Escape');

    // The owner hands over and leaves.
    assert.ok(await one.getByRole('button', { name: 'Leave group' }).isDisabled());
    await manage(one, 'Bob of Groups', 'Hand ownership over');
    await one.getByRole('alertdialog').getByRole('button', { name: 'Hand ownership over' }).click();
    await member(one, 'Bob of Groups').getByText('Owner', { exact: true }).waitFor();
    await one.getByRole('button', { name: 'Leave group' }).click();
    await one.getByRole('alertdialog').getByRole('button', { name: 'Leave group' }).click();
    await one.getByText('No conversations yet').waitFor();
    await two.getByText('1 member', { exact: true }).first().waitFor();
  });

  test('muted, it counts no more in the title, and a divider shows what is new', async () => {
    const [alice, bob] = await Promise.all([world.person({ displayName: 'Alice' }), world.person({ displayName: 'Bob' })]);
    const room = await world.group(alice, bob);
    const client = await world.connect(bob);
    const page = await browsers.openAs(world, alice);
    await phase(page, 'online');
    for (const text of ['one', 'two', 'three']) await client.send(room.id, text);
    await page.waitForFunction(() => document.title === '(3) Starling');
    await openRoom(page, 'A group');
    await page.getByRole('separator', { name: 'New messages' }).waitFor();
    await page.waitForFunction(() => document.title === 'Starling');
    await details(page);
    await page.getByRole('button', { name: 'Mute' }).click();
    await page.keyboard.press('Escape');
    await page.goto(`${world.url}/`);
    await phase(page, 'online');
    await client.send(room.id, 'four');
    await roomLink(page, 'A group').getByText('1 unread message').waitFor({ state: 'attached' });
    assert.equal(await page.title(), 'Starling');
  });

  test('who types is named, three at most', async () => {
    const users = await Promise.all(['Ann', 'Ben', 'Cid', 'Dan', 'Eve'].map((displayName) => world.person({ displayName })));
    const room = await world.group(...users);
    const page = await browsers.openAs(world, users[0], { path: `/rooms/${room.id}` });
    await phase(page, 'online');
    await composer(page).waitFor();
    const clients = await world.connectAll(users.slice(1));
    const type = (count) => { for (const client of clients.slice(0, count)) client.socket.emit('typing:start', { roomId: room.id }); };
    for (const [count, words] of [[1, 'Ben is typing…'], [3, /^\w+, \w+ and \w+ are typing…$/], [4, 'Several people are typing…']]) {
      const timer = setInterval(() => type(count), 1100);
      type(count);
      await page.getByText(words).waitFor().finally(() => clearInterval(timer));
    }
  });
});
