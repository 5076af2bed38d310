// Receive batchwatch's webhooks with Node: verify, write down, answer, and only then work.
//
// Node 22.18 or newer runs TypeScript as it is and has SQLite built in:
//   npm install standardwebhooks
//   WEBHOOK_SECRET=whsec_... node receiver.ts

import { createServer, type IncomingMessage } from "node:http";
import { DatabaseSync } from "node:sqlite";
import { Webhook } from "standardwebhooks";

const LARGEST = 1024 * 1024; // bytes; no message of batchwatch is larger

const webhook = new Webhook(process.env.WEBHOOK_SECRET ?? "");
const db = new DatabaseSync(process.env.DATABASE ?? "inbox.db");
db.exec(`
  PRAGMA journal_mode = wal;
  CREATE TABLE IF NOT EXISTS inbox (
    id TEXT PRIMARY KEY, body TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0
  );
  CREATE TABLE IF NOT EXISTS batches (
    watch TEXT, id TEXT, transition INTEGER NOT NULL, status TEXT NOT NULL,
    PRIMARY KEY (watch, id)
  );
`);
// Once, however often it comes.
const keep = db.prepare("INSERT INTO inbox (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING");
const todo = db.prepare("SELECT id, body FROM inbox WHERE NOT done ORDER BY rowid");
const done = db.prepare("UPDATE inbox SET done = 1 WHERE id = ?");
const newest = db.prepare(`
  INSERT INTO batches (watch, id, transition, status) VALUES (?, ?, ?, ?)
  ON CONFLICT (watch, id) DO UPDATE SET transition = excluded.transition, status = excluded.status
  WHERE excluded.transition > batches.transition
`);

// What this receiver reads of a message; later versions have more, and other types.
interface Event {
  type: string;
  data: { watch: string; transition?: number; batch?: { id: string; status: string } };
}

// The status to answer with.
async function receive(request: IncomingMessage): Promise<number> {
  if (request.method !== "POST" || request.url !== "/hooks/batches") return 404;
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > LARGEST) return 413;
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks); // the bytes that were signed, not JSON read and written
  try {
    webhook.verify(body, request.headers as Record<string, string>);
  } catch {
    return 401;
  }
  keep.run(request.headers["webhook-id"] as string, body.toString());
  setImmediate(workOff);
  return 204;
}

// Do what is not done yet, what an earlier process left among it.
function workOff(): void {
  for (const { id, body } of todo.all() as { id: string; body: string }[]) {
    db.exec("BEGIN"); // the work and its mark are written together, or neither
    try {
      work(JSON.parse(body));
      done.run(id);
      db.exec("COMMIT");
    } catch (error) {
      db.exec("ROLLBACK"); // it is tried again with the next message, or at the next start
      console.error(id, error);
    }
  }
}

// Your own work goes here.
function work({ data }: Event): void {
  if (!data.batch || !data.transition) return; // a watch's troubles, and what later versions send
  const row = [data.watch, data.batch.id, data.transition, data.batch.status] as const;
  const isNews = newest.run(...row).changes > 0; // not after something later
  if (isNews && data.watch !== "certify") console.log(...row); // certify's batches are made up
}

const server = createServer((request, response) => {
  receive(request)
    .catch((error) => {
      console.error(error);
      return 500; // trouble of our own: the message comes again
    })
    .then((status) => response.writeHead(status).end());
});
workOff();
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1");
