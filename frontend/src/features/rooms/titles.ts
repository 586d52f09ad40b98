import type { Member, Room } from '@/protocol';

/** The other one of a direct room. */
export const peerOf = (room: Room | undefined, me: number): Member | undefined =>
  (room?.roomType === 'direct' ? room.members?.find((one) => one.userId !== me) : undefined);

/** Empty while the members of a direct room are not known yet. */
export const roomTitle = (room: Room, me: number): string => room.name ?? peerOf(room, me)?.displayName ?? '';
