import { useRealtime } from '@/features/home/context';
import { api } from '@/lib/api';

/** The direct room with somebody, made if there is none; answers its id. */
export function useOpenDirect(): (userId: number) => Promise<number> {
  const realtime = useRealtime();
  return async (userId) => {
    const room = await api.createRoom({ roomType: 'direct', memberIds: [userId] });
    realtime.takeRoom(room);
    return room.id;
  };
}
