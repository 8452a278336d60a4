/**
 * A value of a column as JavaScript has it: `bigint` for int8, uint8 and mz_timestamp; numeric, dates and times are strings.
 * Numbers inside of arrays and jsonb are what `JSON.parse` makes of them.
 */
export type Value = string | number | bigint | boolean | null | Value[] | { [name: string]: Value };

/** A row, by the names of its columns. */
export type Row = { [column: string]: Value };

/** What a row is under in {@link View.rows}. */
export type RowKey = string | number | bigint | boolean | null;

/** A column of a view, with the name that PostgreSQL has for its type: `text`, `int8`, `jsonb`. */
export interface Column {
  readonly name: string;
  readonly type: string;
}

/** A view: its rows, and what the last message changed. */
export interface View<R extends object = Row> {
  readonly name: string;
  readonly columns: readonly Column[];
  /** The names of the columns that identify a row; empty if none do. */
  readonly key: readonly string[];
  /**
   * The rows, each under its key: the value of the key's column, or, where that is no plain value or the key has several
   * columns, `JSON.stringify` of the list of their values, with numbers of the types int8, uint8, numeric and mz_timestamp as
   * strings. A row that stays under its key stays where it is in the order of the map.
   *
   * A view without a key is a multiset: each copy of a row is an entry, under a text that means nothing but stays the same. (So
   * is a row whose key is taken, as only a key can do that is none.)
   *
   * The map is the same object for as long as the subscription lives; do not change it.
   */
  readonly rows: ReadonlyMap<RowKey, R>;
  /** Rows that the last message brought, not counting updates. Of a base, too, these are the differences to what was there. */
  readonly inserted: readonly R[];
  /** Rows that the last message took away, not counting updates. */
  readonly deleted: readonly R[];
  /** Rows that are under the same key as before, with other values. */
  readonly updated: readonly { readonly before: R; readonly after: R }[];
  /** Whether the rows were compared with the server's checksum. (Rows that differ from it are never shown.) */
  readonly verified: boolean;
}

/** Views by name. */
export type Views<V extends Record<keyof V, object>> = { readonly [Name in keyof V]: View<V[Name]> };

/**
 * What is told when a message has been applied. All views are what they were at one time. `rows`, `inserted`, `deleted` and
 * `updated` are those of the first view.
 */
export interface Change<V extends Record<keyof V, object> = Record<string, Row>>
  extends Pick<View<V[keyof V]>, "rows" | "inserted" | "deleted" | "updated"> {
  /** `base`: from the whole view; `delta`: from what has changed; `progress`: nothing has, but the time. */
  readonly type: "base" | "delta" | "progress";
  /** Everything below it is there, and nothing else: digits, usually milliseconds since 1970. */
  readonly timestamp: string;
  /** Whether the rows of all views were compared with the server's checksums. */
  readonly verified: boolean;
  readonly views: Views<V>;
}

/**
 * The state of the connection. `live` is followed by `reconnecting` whenever the connection is lost, until a message has come
 * again; `closed` is the end.
 */
export type State = "connecting" | "live" | "reconnecting" | "closed";

export interface Options<V extends Record<keyof V, object> = Record<string, Row>> {
  /** Called after each message that was applied. */
  onChange?(change: Change<V>): void;
  /**
   * Called when the state changes, or the reason for it: text for people that says why the connection was lost, or, when it is
   * `connecting` or `live`, which view has stopped or has no data yet.
   */
  onState?(state: State, reason: string | undefined): void;
  /** At most one message in so many milliseconds, of everything that has happened. */
  interval?: number;
  /** Another implementation of `WebSocket`. Node 20 has none of its own; without one, server-sent events are used. */
  WebSocket?: new (url: string) => object;
  /** Another implementation of `fetch`, which server-sent events are read with. */
  fetch?: typeof globalThis.fetch;
}

/** What {@link subscribe} returns. */
export interface Subscription<V extends Record<keyof V, object> = Record<string, Row>> {
  readonly views: Views<V>;
  /** The rows of the first view. */
  readonly rows: View<V[keyof V]>["rows"];
  /** As in {@link Change}; empty before the first message. */
  readonly timestamp: string;
  readonly state: State;
  /** As in {@link Change}: false before the first message, and after a change that did not add up, until there is a base. */
  readonly verified: boolean;
  /** Ends it. The views keep what they hold. */
  close(): void;
}

/**
 * Follows one or more views of mzd until `close` is called.
 *
 * What it shows is always what the views were at one time. It comes back when the connection is lost, after a random time that
 * grows, and goes on from where it was. It goes by websocket, and by server-sent events where websockets do not get through. It
 * compares its rows with the server's checksum at each message, and asks for them anew if they differ.
 *
 * ```js
 * subscribe("http://127.0.0.1:8875", "top10", { onChange: ({ rows }) => console.log(rows.get("Ada")?.count) });
 * ```
 *
 * What a callback throws ends nothing; it is reported as an unhandled rejection.
 *
 * @param url where mzd serves; in a browser it may be relative to the page, as in `"/"`
 * @param views a name, or several
 * @typeParam V the rows of the views by their names, as in `subscribe<{ top10: { user: string; count: bigint } }>`
 */
export function subscribe<V extends Record<keyof V, object> = Record<string, Row>>(
  url: string | URL,
  views: (keyof V & string) | readonly (keyof V & string)[],
  options?: Options<V>,
): Subscription<V>;
