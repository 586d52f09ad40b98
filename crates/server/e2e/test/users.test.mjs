// One's own profile, and finding others.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { answered, checkUser, refused } from '../support/expect.mjs';
import { useServer } from '../support/fixture.mjs';

describe('users', () => {
  const world = useServer();

  test('one reads oneself with the e-mail', async () => {
    const user = await world.person();
    const { user: me } = answered(await user.api.get('/users/me'));
    checkUser(me, { own: true });
    assert.deepEqual([me.id, me.username, me.email], [user.id, user.username, user.email]);
  });

  test('one changes the display name and the avatar, and null clears the avatar', async () => {
    const { api } = await world.person();
    const patch = async (body) => checkUser(answered(await api.patch('/users/me', body)).user, { own: true });
    assert.equal((await patch({ displayName: 'Ada 🦜' })).displayName, 'Ada 🦜');
    const avatarUrl = 'https://images.example.test/a.png';
    assert.equal((await patch({ avatarUrl })).avatarUrl, avatarUrl);
    const untouched = await patch({ someUnknownField: true });
    assert.deepEqual([untouched.displayName, untouched.avatarUrl], ['Ada 🦜', avatarUrl]);
    assert.equal((await patch({ avatarUrl: null })).avatarUrl, null);
    assert.equal(answered(await api.get('/users/me')).user.displayName, 'Ada 🦜');
  });

  test('a display name has 1 to 64 characters and an avatar URL at most 2048', async () => {
    const { api } = await world.person();
    answered(await api.patch('/users/me', { displayName: '🦜'.repeat(64) }));
    answered(await api.patch('/users/me', { avatarUrl: `https://example.test/${'a'.repeat(2048 - 21)}` }));
    for (const displayName of ['', 'x'.repeat(65), 7, ['x'], 'nul\u0000']) {
      refused(await api.patch('/users/me', { displayName }), 400, 'validation_failed', ['displayName']);
    }
    for (const avatarUrl of [`https://example.test/${'a'.repeat(2048)}`, 7, {}]) {
      refused(await api.patch('/users/me', { avatarUrl }), 400, 'validation_failed', ['avatarUrl']);
    }
  });

  test('search finds prefixes of user names and display names, in any case, without e-mails', async () => {
    const seeker = await world.person();
    const byName = await world.person({ username: 'Zebra_one' });
    const byDisplayName = await world.person({ username: 'stripes', displayName: 'ZEBRA two' });
    await world.person({ username: 'not-a-zebra' });
    const search = async (query) => answered(await seeker.api.get(`/users?${query}`)).users;
    const found = await search('search=zebra');
    found.forEach((user) => checkUser(user));
    assert.deepEqual(found.map(({ id }) => id).sort(), [byName.id, byDisplayName.id].sort());
    assert.equal((await search('search=zebra&limit=1')).length, 1);
    assert.deepEqual((await search('search=zebra_')).map(({ id }) => id), [byName.id], '_ stands for itself');
    assert.deepEqual(await search('search=%25ebra'), [], '% stands for itself');
  });

  test('ids answers those who exist and leaves out the others', async () => {
    const [one, two, seeker] = await world.people(3);
    const { users } = answered(await seeker.api.get(`/users?ids=${two.id},${one.id},2000000000`));
    users.forEach((user) => checkUser(user));
    assert.deepEqual(users.map(({ id }) => id).sort((a, b) => a - b), [one.id, two.id].sort((a, b) => a - b));
    const many = Array.from({ length: 200 }, (_, i) => 1_000_000 + i);
    assert.deepEqual(answered(await seeker.api.get(`/users?ids=${many}`)).users, []);
    const beyond = answered(await seeker.api.get(`/users?ids=${one.id},99999999999,0`)).users;
    assert.deepEqual(beyond.map(({ id }) => id), [one.id], 'a number that no id can be names nobody');
  });

  test('a query has exactly one of search and ids, and each well-formed', async () => {
    const { api } = await world.person();
    const tooMany = Array.from({ length: 201 }, (_, i) => i + 1);
    for (const query of ['', 'search=a&ids=1', 'ids=', 'ids=one', 'ids=-1', 'ids=%2B1', 'search=a&limit=%2B5', 'search=%ff%EF%BF%BD', 'ids=1,,2', `ids=${tooMany}`, 'search=a&limit=many', 'search=a&limit=-1']) {
      refused(await api.get(`/users?${query}`), 400, 'validation_failed');
    }
  });
});
