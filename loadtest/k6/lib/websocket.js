// The only place that knows where k6 keeps its WebSocket: from k6 1.2 on it is `k6/websockets`.
export { WebSocket } from 'k6/experimental/websockets';
