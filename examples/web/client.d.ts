// Types of client.js; copy both.

/** What was refused before, and why. */
export interface Refusal {
  /** The value of `Authorization` that was shown, if any was. */
  refused?: string;
  /** `X-Keyproxy-Code`: credential_missing, credential_invalid or credential_expired. */
  code?: string;
}

/** Gives the value of `Authorization`, or nothing; after a 401 it is asked once more. */
export type CredentialSource = (refusal?: Refusal) => Promise<string | undefined>;

/** Nobody in particular: on your own computer, or behind a log-in of your own. */
export function anonymous(): CredentialSource;

/** A client token, as `keyproxy token` prints it. Whoever has the page can read it. */
export function clientToken(token: string): CredentialSource;

/** The JWT of a user who is logged in; asked at every call. `isStale`: the last one was refused. */
export function userToken(
  getToken: (asked: { isStale: boolean }) => Promise<string | null | undefined>,
): CredentialSource;

/** An anonymous session: opened with the first call, renewed before it ends. `base` is the
 *  address of the API, such as `https://api.example.com/api/v1`. */
export function session(
  base: string,
  options?: { solveCaptcha?: () => Promise<string> },
): CredentialSource;

/** The proxy opens no session for this page; `response` says why. */
export class SessionRefused extends Error {
  response: Response;
}

/** `fetch()` as the client that `source` makes it; tried once more with a fresh credential. */
export function fetchAs(
  source: CredentialSource,
  resource: string | URL | Request,
  options?: RequestInit,
): Promise<Response>;

/** What an SDK takes for its `fetch`. */
export function fetchFor(
  source: CredentialSource,
): (resource: string | URL | Request, options?: RequestInit) => Promise<Response>;

/** Keep a value until the tab is closed. */
export function remember(key: string, value: unknown): void;
export function recall(key: string): any;
