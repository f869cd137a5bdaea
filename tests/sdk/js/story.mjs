// Two people chat with the official JavaScript SDK; the server's API plays their back-end.
import { fork } from "node:child_process";
import assert from "node:assert/strict";

const tag = `js${process.pid}`;
const [alice, bob, group] = [`${tag}-alice`, `${tag}-bob`, `${tag}-group`];

async function api(path, body) {
  const response = await fetch(process.env.WK_API + path, { method: "POST", body: JSON.stringify(body) });
  const json = await response.json();
  assert.equal(response.status, 200, `${path}: ${JSON.stringify(json)}`);
  return json;
}

class Client {
  constructor(uid, token) {
    this.seen = [];
    this.waiting = [];
    this.process = fork("dist/client.cjs", { env: { ...process.env, WK_UID: uid, WK_TOKEN: token } });
    this.process.on("message", (event) => {
      this.seen.push(event);
      this.waiting = this.waiting.filter((check) => !check());
    });
  }
  do(command, args = {}) {
    this.process.send({ command, ...args });
  }
  // The first event that matches, taken out; waits up to 10 s.
  next(what, match) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${what}; seen ${JSON.stringify(this.seen)}`)), 10_000);
      const check = () => {
        const at = this.seen.findIndex(match);
        if (at < 0) return false;
        clearTimeout(timer);
        resolve(this.seen.splice(at, 1)[0]);
        return true;
      };
      if (!check()) this.waiting.push(check);
    });
  }
  async connected() {
    this.do("connect");
    return this.next("connection", (e) => e.event === "status" && e.status === 1);
  }
  async send(channel, type, text) {
    this.do("send", { channel, type, text });
    const ack = await this.next("SENDACK", (e) => e.event === "ack");
    assert.equal(ack.reason, 1, `SEND to ${channel}`);
    return ack.seq;
  }
  received(text) {
    return this.next(`message "${text}"`, (e) => e.event === "message" && e.text === text);
  }
}

const clients = [];
const client = (uid, token) => (clients.push(new Client(uid, token)), clients.at(-1));
const step = (name) => console.log(`  ok: ${name}`);
try {
  for (const uid of [alice, bob]) await api("/user/token", { uid, token: `t-${uid}`, device_flag: 1, device_level: 1 });

  const stranger = client(alice, "wrong");
  stranger.do("connect");
  const refused = await stranger.next("refusal", (e) => e.event === "status" && e.status !== 1);
  assert.equal(refused.reason, 2, "a wrong token is answered with AuthFail");
  step("a wrong token is refused");

  const a = client(alice, `t-${alice}`), b = client(bob, `t-${bob}`);
  await Promise.all([a.connected(), b.connected()]);
  step("both connect with their tokens");

  const first = await a.send(bob, 1, "hello bob");
  const got = await b.received("hello bob");
  assert.deepEqual([got.from, got.channel, got.seq, first], [alice, alice, 1, 1]);
  await b.send(alice, 1, "hello alice");
  assert.equal((await a.received("hello alice")).seq, 2);
  step("they chat one to one, both ways");

  await api("/channel", { channel_id: group, channel_type: 2, subscribers: [alice, bob] });
  await a.send(group, 2, "hello group");
  assert.equal((await b.received("hello group")).channel, group);
  step("they chat in a group");

  b.do("disconnect");
  const waitOffline = Date.now() + 10_000;
  while ((await api("/user/onlinestatus", [bob])).length) assert.ok(Date.now() < waitOffline, "bob goes offline");
  for (const n of [1, 2, 3]) await a.send(bob, 1, `while away ${n}`);
  const conversations = await api("/conversation/sync", { uid: bob, msg_count: 10 });
  const chat = conversations.find((c) => c.channel_id === alice);
  assert.deepEqual([chat.unread, chat.last_msg_seq], [3, 5]);
  const history = await api("/channel/messagesync", { login_uid: bob, channel_id: alice, channel_type: 1, start_message_seq: 0, end_message_seq: 0, limit: 50, pull_mode: 1 });
  const texts = history.messages.map((m) => JSON.parse(Buffer.from(m.payload, "base64")).content);
  assert.deepEqual(texts, ["hello bob", "hello alice", "while away 1", "while away 2", "while away 3"]);
  step("bob finds what he missed in conversations and history");

  await b.connected();
  await a.send(bob, 1, "welcome back");
  await b.received("welcome back");
  await api("/conversations/clearUnread", { uid: bob, channel_id: alice, channel_type: 1 });
  const after = await api("/conversation/sync", { uid: bob, msg_count: 1 });
  assert.equal(after.find((c) => c.channel_id === alice).unread, 0);
  step("bob comes back and reads everything");
} finally {
  for (const c of clients) c.process.kill();
}
