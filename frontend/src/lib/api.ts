/** The REST calls, by what they are for. */
import { accessToken } from '@/auth/sessions';
import type {
  HistoryPage, Message, Role, RoomBody, RoomCreate, RoomsBody, SearchPage, User, UserBody, UserPatch, UsersBody,
} from '@/protocol';
import { ApiError, call, type Method } from './http';

async function authorised<T>(method: Method, path: string, body?: object): Promise<T> {
  const token = await accessToken();
  try {
    return await call<T>(method, path, body, token);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    return call<T>(method, path, body, await accessToken(token));
  }
}

export interface Cursor {
  before?: number;
  after?: number;
  limit?: number;
}

function query(values: object): string {
  const set = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
}

export const api = {
  rooms: () => authorised<RoomsBody>('GET', '/rooms').then(({ rooms }) => rooms),
  room: (id: number) => authorised<RoomBody>('GET', `/rooms/${id}`).then(({ room }) => room),
  createRoom: (body: RoomCreate) => authorised<RoomBody>('POST', '/rooms', body).then(({ room }) => room),
  renameRoom: (id: number, name: string) => authorised<RoomBody>('PATCH', `/rooms/${id}`, { name }).then(({ room }) => room),
  addMembers: (id: number, userIds: number[]) =>
    authorised<RoomBody>('POST', `/rooms/${id}/members`, { userIds }).then(({ room }) => room),
  setRole: (id: number, userId: number, role: Role) =>
    authorised<RoomBody>('PATCH', `/rooms/${id}/members/${userId}`, { role }).then(({ room }) => room),
  removeMember: (id: number, userId: number) => authorised<null>('DELETE', `/rooms/${id}/members/${userId}`),
  history: (id: number, cursor: Cursor) => authorised<HistoryPage>('GET', `/rooms/${id}/messages?${query(cursor)}`),
  /** One message by its place; null when there is none there. */
  messageAt: (id: number, seq: number): Promise<Message | null> =>
    api.history(id, { before: seq + 1, limit: 1 }).then(({ messages }) => messages.find((one) => one.seq === seq) ?? null),
  search: (q: string, roomId?: number, before?: string | null) =>
    authorised<SearchPage>('GET', `/messages/search?${query({ q, roomId, before })}`),
  findUsers: (search: string) =>
    authorised<UsersBody>('GET', `/users?${query({ search, limit: 20 })}`).then(({ users }) => users),
  users: (ids: number[]) => authorised<UsersBody>('GET', `/users?${query({ ids: ids.join(',') })}`).then(({ users }) => users),
  updateMe: (body: UserPatch): Promise<User> => authorised<UserBody>('PATCH', '/users/me', body).then(({ user }) => user),
};

export type Api = typeof api;
