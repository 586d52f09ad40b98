import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import { useRealtime } from '@/features/home/context';
import { api } from '@/lib/api';
import { local } from '@/lib/storage';
import { useStore } from '@/lib/use-store';
import type { Member, Presence, Room } from '@/protocol';
import { ROOMS, roomKey } from '@/realtime/realtime';
import { withFresh } from '@/realtime/room-list';
import { peerOf, roomTitle } from './titles';

export function useRooms() {
  const queries = useQueryClient();
  return useQuery({
    queryKey: ROOMS,
    queryFn: async () => {
      const fresh = await api.rooms();
      return withFresh(queries.getQueryData<Room[]>(ROOMS), fresh);
    },
  });
}

/** A room with its members. */
export function useRoom(roomId: number) {
  const realtime = useRealtime();
  const query = useQuery({
    queryKey: roomKey(roomId),
    queryFn: async () => {
      const room = await api.room(roomId);
      realtime.people.learn(room.members ?? []);
      return room;
    },
  });
  return query;
}

/** Direct rooms are named after the other one; remembered, so that the list has its names at once. */
const peersKey = (me: number) => `starling.peers.${me}`;
type Peers = Record<number, Pick<Member, 'userId' | 'displayName' | 'avatarUrl' | 'username'>>;

export interface Face {
  title: string;
  /** Decides the colour. */
  id: number;
  url: string | null;
  peerId: number | null;
  status: Presence['status'] | undefined;
  lastSeen: string | null;
}

/** How a room presents itself in the list and at its head. */
export function useFace(room: Room): Face {
  const realtime = useRealtime();
  const { me } = realtime;
  const isDirect = room.roomType === 'direct';
  const remembered = isDirect ? local.read<Peers>(peersKey(me))?.[room.id] : undefined;
  const { data } = useQuery({ queryKey: roomKey(room.id), queryFn: () => api.room(room.id), enabled: isDirect });
  const peer = peerOf(data, me) ?? remembered;
  const presence = useStore(realtime.presence);
  const peerId = peer?.userId ?? null;
  const known = peerOf(data, me);
  useEffect(() => {
    if (peerId !== null) realtime.presence.want([peerId]);
  }, [realtime, peerId]);
  useEffect(() => {
    if (!known) return;
    realtime.people.learn([known]);
    const { userId, displayName, avatarUrl, username } = known;
    local.write(peersKey(me), { ...local.read<Peers>(peersKey(me)), [room.id]: { userId, displayName, avatarUrl, username } });
  }, [realtime, me, room.id, known]);
  const there = peerId === null ? undefined : presence.get(peerId);
  return {
    title: isDirect ? peer?.displayName ?? '' : roomTitle(room, me),
    id: peerId ?? room.id * 31 + 5,
    url: peer?.avatarUrl ?? null,
    peerId,
    status: isDirect ? there?.status ?? 'offline' : undefined,
    lastSeen: there?.lastSeen ?? null,
  };
}
