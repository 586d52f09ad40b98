import type { Code, ErrorBody, Failure } from '@/protocol';

/** What the server answered, or `network` when it did not. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: Code | 'network';
  readonly retryAfterMs: number | undefined;
  readonly fields: Partial<Record<string, string>>;

  constructor(status: number, failure: Omit<Failure, 'code'> & { code: Code | 'network' }) {
    super(failure.message);
    this.name = 'ApiError';
    this.status = status;
    this.code = failure.code;
    this.retryAfterMs = failure.retryAfterMs;
    this.fields = failure.fields ?? {};
  }
}

export type Method = 'GET' | 'POST' | 'PATCH' | 'DELETE';

/** Longer than any answer takes that still comes. */
const TIMEOUT_MS = 20_000;

/** One call under `/api`. */
export async function call<T>(method: Method, path: string, body?: object, token?: string): Promise<T> {
  const headers: Record<string, string> = {};
  if (body) headers['content-type'] = 'application/json';
  if (token) headers['authorization'] = `Bearer ${token}`;
  let response: Response;
  try {
    response = await fetch(`/api${path}`, {
      method,
      headers,
      ...(body ? { body: JSON.stringify(body) } : {}),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch {
    throw new ApiError(0, { code: 'network', message: 'The server cannot be reached.' });
  }
  const answer: unknown = response.status === 204 ? null : await response.json().catch(() => null);
  if (response.ok) return answer as T;
  const failure = (answer as Partial<ErrorBody> | null)?.error;
  throw new ApiError(response.status, failure ?? { code: 'unavailable', message: `The server answered ${response.status}.` });
}
