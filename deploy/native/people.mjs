// Demo people and a room for a cluster whose database begins empty.

const NAMES = ['alice', 'bob', 'carol', 'dave', 'erin', 'frank'];
const PASSWORD = 'starling-demo';

async function post(url, token, body) {
  const answer = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  const json = await answer.json();
  if (!answer.ok) throw new Error(`POST ${new URL(url).pathname}: ${answer.status} ${JSON.stringify(json)}`);
  return json;
}

/** Registers them and opens a room for all. */
export async function people(url) {
  const users = [];
  for (const username of NAMES) {
    const displayName = username[0].toUpperCase() + username.slice(1);
    users.push(await post(`${url}/api/auth/register`, undefined, {
      username, displayName, password: PASSWORD, email: `${username}@example.test`,
    }));
  }
  await post(`${url}/api/rooms`, users[0].accessToken, {
    roomType: 'group', name: 'Everybody', memberIds: users.slice(1).map(({ user }) => user.id),
  });
  return { names: NAMES, password: PASSWORD };
}
