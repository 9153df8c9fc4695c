/** A frame: a JSON object with a type. */
export interface Frame {
  type: string;
  ref?: string;
  /** Of a message of a stream: which one, and where in it. */
  kept?: Position;
  [field: string]: any;
}

/** How far somebody has a stream. */
export interface Position {
  stream: string;
  epoch: string;
  offset: number;
}

/** What travels, by type: what the server pushes, and what it is sent and answers. Narrow it for a socket of yours. */
export interface Messages {
  /** type -> the frame that arrives */
  receives: Record<string, any>;
  /** type -> the fields that are sent, and the reply to them */
  sends: Record<string, {fields: any; reply: any}>;
}

export type State = 'connecting' | 'open' | 'waiting' | 'offline' | 'closed';

export interface SocketOptions {
  /** ms that a request waits for its answer (10000) */
  timeout?: number;
  /** ms of silence after which the server is asked for a sign of life (20000) */
  heartbeat?: number;
  /** ms that it has to give one, and to let us in (10000) */
  heartbeatTimeout?: number;
  /** ms, at most, before the first new attempt; twice that before the next, and so on (1000) */
  minDelay?: number;
  /** ms, at most, before any attempt (5000) */
  maxDelay?: number;
  /** frames that may wait for a connection (1000) */
  queueSize?: number;
  /** close codes of the page's own after which it stays closed, beside 4400, 4401 and 4403 ([]) */
  final?: number[];
  /** another class than the browser's */
  WebSocket?: new (url: string) => WebSocket;
}

export interface RequestOptions {
  /** ms to wait for the answer; the socket's `timeout` if it is not given */
  timeout?: number;
  /** aborts the request: it is not sent any more, or its answer is dropped */
  signal?: AbortSignal;
}

/** The `detail` of each event. */
export interface SocketEvents {
  /** `delay`: ms until the next attempt, when the state is 'waiting' */
  state: {state: State; previous: State; delay?: number};
  open: null;
  /** 1006 when there was no close: the server died, fell silent, or the page went offline */
  close: {code: number; reason: string; reconnects: boolean};
  /** The server's RECONNECT. The close that follows says why: 4401, the session is gone; 1012, just come back. */
  reconnect: {type: 'RECONNECT'; details: string; [field: string]: any};
  /** An ERROR that answers no request. It goes to the console unless preventDefault() is called. */
  error: {type: 'ERROR'; code: string; details: string; [field: string]: any};
  /**
   * Messages of a stream that the server does not have any more: the page is to load what it shows anew. It goes on after
   * `offset`. `within`: the streams of demultiplexers that it comes through, if any.
   */
  lost: Position & {within?: string[]};
}

/** Why a request has no answer, or a frame was not taken. */
export class SocketError extends Error {
  constructor(code: string, details: string, content?: Frame);
  /** The server's, or 'timeout', 'connection_lost', 'closed', 'aborted' or 'queue_full'. */
  readonly code: string;
  readonly details: string;
  /** Those of the ERROR, such as a form's. */
  readonly errors?: any;
  /** The whole ERROR; undefined if the client gave up by itself. */
  readonly content?: Frame;
}

/** What a binary frame can be made of. */
export type Bytes = ArrayBuffer | ArrayBufferView | Blob;

type Type<M extends Messages, K extends keyof Messages> = Extract<keyof M[K], string>;
/** Any string, as long as nobody has said which there are. */
type AnyType<M extends Messages, K extends keyof Messages> = string extends Type<M, K> ? string : never;

/** The browser's end of a socket. It connects at once, and whenever it must. */
export class SocketRouter<M extends Messages = Messages> extends EventTarget {
  /** `path`: a path or an address; that of the page if it is not given. */
  constructor(path?: string | URL, options?: SocketOptions);

  readonly state: State;

  /** Call `fn` for each frame whose type equals the string, or matches the RegExp from the start. The last wins. */
  route<T extends Type<M, 'receives'>>(type: T, fn: (content: M['receives'][T], socket: this) => void): this;
  route<Content = Frame>(
    pattern: AnyType<M, 'receives'> | RegExp, fn: (content: Content, socket: this) => void): this;

  route(pattern: Uint8ArrayConstructor, fn: (data: Uint8Array, socket: this) => void): this;

  /** Call `fn` with each binary frame that answers no request. The last one counts. */
  bytes(fn: (data: Uint8Array, socket: this) => void): this;

  /** Call `fn` for the frames that match, beside the route and other listeners, which stay as they are. */
  on<T extends Type<M, 'receives'>>(type: T, fn: (content: M['receives'][T], socket: this) => void): this;
  on<Content = Frame>(
    pattern: AnyType<M, 'receives'> | RegExp, fn: (content: Content, socket: this) => void): this;
  on(pattern: Uint8ArrayConstructor, fn: (data: Uint8Array, socket: this) => void): this;

  /** Call `fn`, which was given to `on()` with the same pattern, no more. */
  off(
    pattern: Type<M, 'receives'> | AnyType<M, 'receives'> | RegExp | Uint8ArrayConstructor,
    fn: (content: any, socket: this) => void): this;

  /** Call `fn` for each frame that no route matches. */
  default<Content = Frame>(fn: (content: Content, socket: this) => void): this;

  /** Send a frame, now or when there is a connection. Throws SocketError if it is closed or the queue is full. */
  send<T extends Type<M, 'sends'>>(type: T, fields?: M['sends'][T]['fields']): void;
  send(type: AnyType<M, 'sends'>, fields?: object): void;
  /** Send a binary frame. */
  send(data: Bytes): void;

  /** Send a frame and return a promise of its answer, which is rejected with a SocketError. */
  request<T extends Type<M, 'sends'>>(
    type: T, fields?: M['sends'][T]['fields'], options?: RequestOptions): Promise<M['sends'][T]['reply']>;
  request<Reply = Frame>(type: AnyType<M, 'sends'>, fields?: object, options?: RequestOptions): Promise<Reply>;
  /** Send a binary frame and return a promise of its answer: a Uint8Array if the function returned bytes. */
  request<Reply = Frame>(data: Bytes, options?: RequestOptions): Promise<Reply>;

  /** Connect now, unless there is a connection: after a close(), a final code, or instead of waiting. */
  open(): void;

  /** Close the connection and stay closed until open(). Requests under way are rejected, what is queued is dropped. */
  close(code?: number, reason?: string): void;

  addEventListener<K extends keyof SocketEvents>(
    type: K, listener: (this: this, event: CustomEvent<SocketEvents[K]>) => void,
    options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof SocketEvents>(
    type: K, listener: (this: this, event: CustomEvent<SocketEvents[K]>) => void,
    options?: boolean | EventListenerOptions): void;
  removeEventListener(
    type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | EventListenerOptions): void;
}

type Router = typeof SocketRouter;
type RouterError = typeof SocketError;

declare global {
  var SocketRouter: Router;
  var SocketError: RouterError;
}
