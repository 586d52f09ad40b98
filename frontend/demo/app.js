// Starling's demo page: log in, read, write. Every text from the server is shown as text only.
import { io } from './socket.io.esm.min.js';
/** @import { Message, Pending, Presence, Room, RoomData, Session } from './types' */

const [STORE, NOTICE] = ['starling.session', 'starling.notice'];
const $ = /** @returns {any} */ (id) => document.getElementById(id);
let session = /** @type {?Session} */ (JSON.parse(sessionStorage.getItem(STORE) ?? 'null')); // of this tab only
let refreshing = /** @type {?Promise<void>} */ (null);
let ended = false;
let current = /** @type {?Room} */ (null);
const rooms = /** @type {Map<number, Room>} */ (new Map());
const users = /** @type {Map<number, string>} display names */ (new Map());
const presence = /** @type {Map<number, Presence>} */ (new Map());
const isMine = (message) => message.senderId === session?.user.id;
const others = (room) => (room.members ?? []).filter((one) => one.userId !== session?.user.id);
/** Calls within `ms` become one call. */
const coalesce = (action, ms, timer = 0) => () => { timer ||= setTimeout(() => { timer = 0; action(); }, ms); };

// --- REST and session ---
/** The server said no, as opposed to a lost connection: only such an error has a status. */
const refusal = (message, status = 0) => Object.assign(new Error(message), { status });
/** @param {object} [body] @param {string} [token] */
async function call(method, path, body, token) {
  const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(`/api${path}`, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw refusal(answer?.error?.message ?? `The server answered ${response.status}.`, response.status);
  return answer;
}
async function api(method, path, body = /** @type {object | undefined} */ (undefined)) {
  const token = session?.accessToken;
  return call(method, path, body, token).catch(async (error) => {
    if (error.status !== 401) throw error;
    if (session?.accessToken === token) await refresh();
    return call(method, path, body, session?.accessToken);
  });
}
const keep = (answer) => sessionStorage.setItem(STORE, JSON.stringify(session = answer));
/** One at a time: a refresh token that is used twice ends the session. */
function refresh() {
  refreshing ??= call('POST', '/auth/refresh', { refreshToken: session?.refreshToken }).then(keep, (error) => {
    if (error.status === 401) endSession('Your session has ended. Please log in again.');
    throw error;
  }).finally(() => { refreshing = null; });
  return refreshing;
}
/** Starts over with a fresh page, which drops everything held in memory. */
function endSession(notice) {
  if (ended) return;
  ended = true;
  socket.disconnect();
  sessionStorage.removeItem(STORE);
  sessionStorage.setItem(NOTICE, notice);
  location.reload();
}

// --- Rooms and messages ---
function addMessage(/** @type {Message} */ message) {
  const room = rooms.get(message.roomId);
  if (!room) return refreshRooms();
  const { seq } = message;
  const old = room.messages.get(seq);
  if (isMine(message)) room.pending = room.pending.filter((one) => one.clientId !== message.clientId);
  else if (!old && seq > room.have && seq > room.readSeq) room.unreadCount += 1;
  const [a, b] = [old?.receipts, message.receipts]; // a broadcast may omit them, and counts only grow
  const receipts = a && b ? { ...b, delivered: Math.max(a.delivered, b.delivered), read: Math.max(a.read, b.read) } : a ?? b;
  const merged = { ...message, receipts };
  if (seq >= room.from) room.messages.set(seq, merged);
  while (room.messages.has(room.have + 1)) room.have += 1;
  if (seq >= room.lastSeq) Object.assign(room, { lastSeq: seq, lastMessage: merged });
  if (room.lastSeq > room.have) syncSoon(room);
  paint();
}
function mergeRoom(/** @type {RoomData} */ data) {
  /** @type {Room} */
  const room = rooms.get(data.id) ?? {
    ...data, messages: new Map(), from: data.lastSeq + 1, have: data.lastSeq, pending: [], readSeq: 0, readAsked: 0,
    loaded: false, loading: false, membersAsked: false, syncTimer: 0, typing: new Map(), draft: '',
  };
  rooms.set(data.id, Object.assign(room, { name: data.name }));
  const later = [...room.messages.values()].filter((one) => one.seq > Math.max(data.lastSeq, room.readSeq) && !isMine(one));
  room.unreadCount = later.length + (room.readSeq >= data.lastSeq ? 0 : data.unreadCount);
  if (data.lastSeq >= room.lastSeq) Object.assign(room, { lastSeq: data.lastSeq, lastMessage: data.lastMessage });
  if (data.lastSeq > room.have + (room.loaded ? 200 : 0)) { // nothing to catch up with, or too much: newest page
    Object.assign(room, { have: data.lastSeq, from: data.lastSeq + 1, loaded: false });
    if (room === current) loadPage(room);
  } else if (room.lastSeq > room.have) syncSoon(room);
}
async function loadRooms() {
  const list = (await api('GET', '/rooms')).rooms;
  list.forEach(mergeRoom);
  for (const id of rooms.keys()) if (!list.some((room) => room.id === id)) removeRoom(id);
  for (const { id } of list.filter((room) => room.roomType === 'direct').slice(0, 50)) loadMembers(rooms.get(id));
  paint();
}
const refreshRooms = coalesce(() => loadRooms().catch(toast), 100);
function removeRoom(id) {
  if (current?.id === id) openRoom(null);
  if (rooms.delete(id)) paint();
}
async function loadMembers(room, again = false) {
  if (!room || (room.membersAsked && !again)) return;
  room.membersAsked = true;
  const answer = await api('GET', `/rooms/${room.id}`).catch(toast);
  room.membersAsked = Boolean(answer);
  room.members = answer?.room.members ?? room.members ?? [];
  for (const one of room.members) users.set(one.userId, one.displayName);
  queryPresence([room]);
}
/** The newest page, or the one before what is held. */
async function loadPage(room) {
  if (room.loading || (room.loaded && room.from <= 1)) return;
  room.loading = true;
  const before = room.loaded ? `&before=${room.from}` : '';
  const { messages } = await api('GET', `/rooms/${room.id}/messages?limit=50${before}`).catch(toast) ?? {};
  room.loading = false;
  if (!messages) return;
  if (room === current && before) holdPosition = true;
  room.loaded = true;
  room.from = Math.min(room.from, messages[0]?.seq ?? room.from);
  messages.forEach(addMessage);
  paint();
}

// --- Socket ---
const socket = io({ autoConnect: false, auth: (give) => give({ token: session?.accessToken }) });
let refreshedToConnect = false;
async function ask(event, payload) {
  if (!socket.connected) throw new Error('There is no connection to the server.');
  const answer = await socket.timeout(10_000).emitWithAck(event, payload);
  if (!answer.ok) throw refusal(answer.error.message);
  return answer;
}
/** Fetches what is missing after `have`; given `after`, what is held from there on too. */
function syncSoon(/** @type {Room} */ room, after = Infinity) {
  if (after < (room.syncAfter ?? Infinity)) room.syncAfter = after;
  room.syncTimer ||= setTimeout(async () => {
    let [afterSeq, more] = [room.syncAfter ?? room.have, room.syncAfter !== undefined || room.have < room.lastSeq];
    Object.assign(room, { syncTimer: 0, syncAfter: undefined });
    while (more) {
      const answer = await ask('room:sync', { rooms: [{ roomId: room.id, afterSeq }] }).catch(() => null);
      const { messages, more: rest } = answer?.rooms[0] ?? { messages: [], more: false };
      receive(messages);
      more = rest && messages.length > 0;
      afterSeq = messages.at(-1)?.seq;
    }
  }, 300);
}
function receive(/** @type {Message[]} of one room */ messages) {
  messages.forEach(addMessage);
  const messageIds = messages.filter((one) => !isMine(one)).map((one) => one.id);
  if (messageIds.length) ask('message:delivered', { roomId: messages[0].roomId, messageIds }).catch(() => {});
}
function markRead() {
  const room = current;
  if (!room?.loaded || !socket.connected || document.visibilityState !== 'visible' || !atBottom()) return;
  const last = room.messages.get(room.have);
  if (!last || last.seq <= Math.max(room.readSeq, room.readAsked) || (!room.unreadCount && isMine(last))) return;
  room.readAsked = last.seq;
  ask('message:read', { roomId: room.id, messageId: last.id })
    .then(({ lastReadSeq }) => setRead(room, lastReadSeq), () => { room.readAsked = 0; });
}
function setRead(room, seq) {
  room.readSeq = Math.max(room.readSeq, seq);
  if (room.readSeq >= room.lastSeq) room.unreadCount = 0;
  else refreshRooms();
  paint();
}
function queryPresence(some) {
  paint();
  const userIds = some.filter((room) => room.roomType === 'direct').flatMap(others).map((one) => one.userId).slice(0, 200);
  if (userIds.length) ask('presence:query', { userIds }).then((answer) => answer.presence.forEach(setPresence), () => {});
}
function setPresence(/** @type {Presence} */ one) { presence.set(one.userId, one); paint(); }
/** Also for another try: the same clientId is the same message. */
function transmit(/** @type {Pending} */ pending) {
  Object.assign(pending, { state: 'sending', error: '', lost: false });
  paint();
  const { roomId, clientId, content } = pending;
  ask('message:send', { roomId, content, clientId }).then(({ message }) => addMessage(message), (error) => {
    const lost = !('status' in error);
    Object.assign(pending, { state: 'failed', lost, error: lost ? 'Not sent: no answer from the server.' : error.message });
    paint();
  });
}
/** crypto.randomUUID exists on secure origins only. */
const uuid = () => crypto.randomUUID?.() ?? '10000000-1000-4000-8000-100000000000'.replace(/[018]/g,
  (c) => (Number(c) ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (Number(c) / 4)))).toString(16));
function setTyping(roomId, userId, isTyping) {
  const typing = rooms.get(roomId)?.typing;
  clearTimeout(typing?.get(userId));
  typing?.delete(userId);
  if (isTyping) typing?.set(userId, setTimeout(setTyping, 5000, roomId, userId, false));
  paint();
}
socket.on('connect', () => { socket.io.reconnectionDelay(1000); refreshedToConnect = false; banner(''); });
socket.on('connect_error', async (/** @type {Error & {description?: unknown}} */ error) => {
  if (socket.active) { // the handshake failed; the client tries again by itself
    return banner(`The server ${error.description === 503 ? 'is busy' : 'cannot be reached'}. Trying again…`);
  }
  const expired = error.message === 'unauthorized';
  if (expired && refreshedToConnect) return endSession('Your session has ended. Please log in again.');
  refreshedToConnect = expired && await refresh().then(() => true, () => false);
  if (refreshedToConnect) return socket.connect();
  banner('The server refused the connection. Trying again…');
  setTimeout(() => ended || socket.connect(), 3000);
});
socket.on('disconnect', (reason) => {
  if (reason === 'io client disconnect') return;
  banner('Connection lost. Reconnecting…');
  if (reason === 'io server disconnect') setTimeout(() => ended || socket.connect(), 1000);
});
socket.on('server:draining', ({ reconnectInMs }) => socket.io.reconnectionDelay(reconnectInMs));
socket.on('session:revoked', ({ reason }) => endSession(`The server ended your session (${reason}).`));
socket.on('session:ready', async ({ rooms: list }) => {
  await loadRooms().catch(toast);
  for (const { roomId, lastReadSeq } of list) {
    const room = rooms.get(roomId);
    if (room) Object.assign(room, { readSeq: Math.max(room.readSeq, lastReadSeq), readAsked: 0 });
  }
  for (const room of rooms.values()) room.pending.filter((one) => one.lost).forEach(transmit);
  queryPresence([...rooms.values()]);
});
socket.on('message:new', (message) => {
  receive([message]);
  setTyping(message.roomId, message.senderId, false);
  if (message.roomId === current?.id && !isMine(message)) $('live').textContent = `${nameOf(message.senderId)}: ${message.content}`;
});
socket.on('message:updated', addMessage);
socket.on('messages:offline', ({ messages }, acknowledge) => { messages.forEach(addMessage); acknowledge?.(); });
socket.on('message:status', ({ roomId, messageIds, status }) => {
  const room = rooms.get(roomId);
  const held = [...room?.messages.values() ?? []].filter((one) => messageIds.includes(one.id));
  if (!room || !held.length) return;
  if (room.roomType === 'group') return syncSoon(room, Math.min(...held.map((one) => one.seq)) - 1); // brings the counts
  for (const one of held) one.receipts = { recipients: 1, delivered: 1, read: status === 'read' ? 1 : one.receipts?.read ?? 0 };
  paint();
});
socket.on('room:new', refreshRooms);
socket.on('room:updated', ({ id }) => { loadMembers(rooms.get(id), true); refreshRooms(); });
socket.on('room:removed', ({ roomId }) => removeRoom(roomId));
socket.on('room:read', ({ roomId, lastReadSeq }) => rooms.has(roomId) && setRead(rooms.get(roomId), lastReadSeq));
socket.on('typing:update', ({ roomId, userId, isTyping }) => setTyping(roomId, userId, isTyping));
socket.on('presence:update', setPresence);
socket.on('sync:required', ({ rooms: list }) => {
  for (const room of list.map((one) => rooms.get(one.roomId))) if (room) syncSoon(room, room.have);
  refreshRooms();
});
socket.on('error', toast);

// --- Page ---
const paint = coalesce(() => { paintRooms(); paintRoom(); markRead(); }, 0);
let [holdPosition, toBottom, typingSent] = [false, false, 0]; // holdPosition: older messages come in above
const drawn = new WeakMap();
const atBottom = () => $('scroll').scrollHeight - $('scroll').scrollTop - $('scroll').clientHeight < 60;
const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
const day = (iso) => new Date(iso).toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long' });
const nameOf = (id) => users.get(id) ?? `User ${id}`;
const titleOf = (room) => room.name ?? (others(room).map((one) => one.displayName).join(', ') || 'Direct conversation');
const activity = (room) => room.lastMessage?.createdAt ?? room.createdAt;
const MARKS = { sending: '◷', failed: '!', sent: '✓', delivered: '✓✓', read: '✓✓' };
/** The only way to make elements: texts become text nodes. @returns {any} */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter(Boolean));
  return element;
}
function show(id, text) { $(id).textContent = text; $(id).hidden = !text; }
const banner = (text) => show('banner', text);
const hideToast = coalesce(() => show('toast', ''), 5000);
function toast({ message }) { show('toast', message); hideToast(); }
/** Makes `parent` hold one element per entry, keeping elements, so that focus and selection survive. */
function fill(parent, entries, make) {
  const focused = /** @type {HTMLElement} */ (document.activeElement);
  const old = new Map([...parent.children].map((element) => [element.dataset.key, element]));
  const keys = new Set(entries.map(([key]) => String(key)));
  for (const [key, element] of old) if (!keys.has(key)) element.remove();
  entries.forEach(([key, facts], i) => {
    const element = old.get(String(key)) ?? h('li', { 'data-key': key });
    if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] ?? null);
    const print = JSON.stringify(facts);
    if (drawn.get(element) !== print) make(element, facts);
    drawn.set(element, print);
  });
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus();
}
function drawRoom(li, { id, title, open, preview, time, unread, status }) {
  const button = li.firstChild ?? li.appendChild(h('button', { class: 'room' }));
  button.onclick = () => openRoom(rooms.get(id));
  button.setAttribute('aria-current', open);
  button.replaceChildren(
    h('span', { class: 'name' }, status && h('span', { class: `dot ${status}`, role: 'img', 'aria-label': status }), title),
    h('time', { class: 'faint' }, time), h('span', { class: 'preview faint' }, preview),
    unread ? h('span', { class: 'badge' }, String(unread), h('span', { class: 'sr' }, ' unread')) : '');
}
function drawMessage(li, { message, state, error, mine, sender, newDay }) {
  const { content, createdAt, deletedAt, editedAt, reactions = [], clientId } = message;
  li.className = mine ? 'message mine' : 'message';
  const retry = state === 'failed' && h('button', { class: 'quiet' }, 'Retry');
  if (retry) retry.onclick = () => current?.pending.filter((one) => one.clientId === clientId).forEach(transmit);
  li.replaceChildren(...[
    newDay && h('p', { class: 'day faint' }, newDay),
    sender && h('p', { class: mine ? 'sr' : 'sender' }, sender),
    h('p', { class: deletedAt ? 'bubble faint' : 'bubble' }, deletedAt ? 'Message deleted' : content),
    h('p', { class: 'meta faint' }, ...reactions.map((one) => `${one.emoji} ${one.userIds.length}  `), editedAt && !deletedAt && 'edited ',
      h('time', { datetime: createdAt }, clock(createdAt)),
      state && h('span', { class: `state ${state}`, role: 'img', 'aria-label': state, title: state }, MARKS[state]), error, retry),
  ].filter(Boolean));
}
function paintRooms() {
  const sorted = [...rooms.values()].sort((a, b) => activity(b).localeCompare(activity(a)));
  fill($('rooms'), sorted.map((room) => [room.id, {
    id: room.id, title: titleOf(room), open: room === current, time: clock(activity(room)), unread: room.unreadCount,
    preview: room.lastMessage ? (isMine(room.lastMessage) ? 'You: ' : '') + (room.lastMessage.content || 'Message deleted') : '',
    status: room.roomType === 'direct' && (presence.get(others(room)[0]?.userId)?.status ?? 'offline'),
  }]), drawRoom);
}
const stateOf = ({ receipts: { recipients = 0, delivered = 0, read = 0 } = {} }) =>
  (!recipients || delivered < recipients ? 'sent' : read < recipients ? 'delivered' : 'read');
function paintRoom() {
  const room = current;
  $('app').classList.toggle('open', Boolean(room));
  if (!room) return;
  const scroll = $('scroll');
  const follow = toBottom || (atBottom() && !holdPosition);
  const fromBottom = scroll.scrollHeight - scroll.scrollTop;
  const stored = [...room.messages.values()].filter((one) => room.loaded && one.seq >= room.from).sort((a, b) => a.seq - b.seq);
  const all = [...stored, ...room.pending.map((one) => ({ ...one, senderId: session?.user.id }))];
  fill($('messages'), all.map((/** @type {any} */ message, i) => {
    const newDay = day(message.createdAt) !== (i && day(all[i - 1].createdAt)) && day(message.createdAt);
    const mine = isMine(message);
    return [mine && message.clientId || message.id, {
      message, mine, newDay, error: message.error, state: mine && (message.state ?? stateOf(message)),
      sender: (newDay || all[i - 1].senderId !== message.senderId) && (mine ? 'You' : nameOf(message.senderId)),
    }];
  }), drawMessage);
  const peer = room.roomType === 'direct' ? presence.get(others(room)[0]?.userId) : undefined;
  $('room-name').textContent = titleOf(room);
  $('room-info').textContent = room.roomType === 'direct' ? peer?.status ?? 'offline' : `${room.members?.length ?? '…'} members`;
  $('typing').textContent = room.typing.size ? `${[...room.typing.keys()].map(nameOf).join(', ')} typing…` : '';
  $('older').hidden = !room.loaded || room.from <= 1;
  if (follow) scroll.scrollTop = scroll.scrollHeight;
  else if (holdPosition) scroll.scrollTop = scroll.scrollHeight - fromBottom;
  holdPosition = false;
  toBottom &&= !room.loaded;
}
function openRoom(room) {
  if (current) current.draft = $('text').value;
  current = room;
  toBottom = true;
  $('text').value = room?.draft ?? '';
  paint();
  if (!room) return;
  loadMembers(room);
  if (!room.loaded) loadPage(room);
  setTimeout(() => $(matchMedia('(pointer: coarse)').matches ? 'room-name' : 'text').focus());
}
function typing(isTyping) {
  if (isTyping ? Date.now() - typingSent < 2000 : !typingSent) return;
  typingSent = isTyping ? Date.now() : 0;
  if (socket.connected && current) socket.emit(isTyping ? 'typing:start' : 'typing:stop', { roomId: current.id });
}
function start() {
  [$('login').hidden, $('app').hidden] = [true, false];
  show('me', session?.user.displayName);
  banner('Connecting…');
  loadRooms().catch(toast).finally(() => ended || socket.connect());
}
$('login-form').onsubmit = (event) => {
  event.preventDefault();
  call('POST', '/auth/login', Object.fromEntries(new FormData(event.target)))
    .then((answer) => { keep(answer); start(); }, (error) => show('login-error', error.message));
};
$('logout').onclick = () => { socket.disconnect(); api('POST', '/auth/logout').catch(() => {}).then(() => endSession('')); };
$('composer').onsubmit = (event) => {
  event.preventDefault();
  const content = $('text').value;
  if (!content.trim() || !current) return;
  const pending = { roomId: current.id, clientId: uuid(), content, createdAt: new Date().toISOString() };
  current.pending.push(pending);
  $('text').value = '';
  toBottom = true;
  typing(false);
  transmit(pending);
};
$('text').oninput = () => typing(Boolean($('text').value));
$('text').onblur = () => typing(false);
$('text').onkeydown = (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); $('composer').requestSubmit(); }
};
$('scroll').onscroll = () => { if ($('scroll').scrollTop < 100 && current?.loaded) loadPage(current); markRead(); };
$('older').onclick = () => current && loadPage(current);
$('back').onclick = () => openRoom(null);
document.onvisibilitychange = markRead;

show('notice', sessionStorage.getItem(NOTICE) ?? '');
sessionStorage.removeItem(NOTICE);
if (session) start(); else $('login').hidden = false;
