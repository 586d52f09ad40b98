import { createContext, useContext } from 'react';
import type { Member, Message, Room } from '@/protocol';
import type { Conversation } from '@/realtime/conversation';

export interface ChatHere {
  room: Room;
  members: readonly Member[];
  title: string;
  conversation: Conversation;
  reply(message: Message): void;
  edit(message: Message): void;
  remove(message: Message): void;
  showSeen(message: Message): void;
  jump(seq: number): void;
  focusComposer(): void;
}

export const ChatContext = createContext<ChatHere | null>(null);

export function useChat(): ChatHere {
  const chat = useContext(ChatContext);
  if (!chat) throw new Error('useChat outside of ChatContext');
  return chat;
}
