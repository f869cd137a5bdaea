"""Two people chat with the official Python EasySDK (JSON-RPC over WebSocket); the server's API plays their back-end."""

import asyncio
import base64
import json
import os
import urllib.request

from wukong_easy_sdk import WKIM, AuthOptions, WKIMChannelType, WKIMError, WKIMEvent

TAG = f"py{os.getpid()}"
ALICE, BOB, GROUP = f"{TAG}-alice", f"{TAG}-bob", f"{TAG}-group"


async def api(path, body):
    def call():
        request = urllib.request.Request(os.environ["WK_API"] + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    return await asyncio.to_thread(call)


class Person:
    def __init__(self, uid, token):
        self.im = WKIM(os.environ["WK_WS"], AuthOptions(uid=uid, token=token))
        self.inbox = asyncio.Queue()
        self.im.on(WKIMEvent.MESSAGE, self.inbox.put)

    async def send(self, channel, kind, text):
        ack = await self.im.send(channel, kind, {"type": 1, "content": text})
        assert ack["reasonCode"] == 1, ack
        return ack["messageSeq"]

    async def received(self, text):
        message = await asyncio.wait_for(self.inbox.get(), 10)
        assert message["payload"]["content"] == text, message
        return message


def step(name):
    print(f"  ok: {name}", flush=True)


async def main():
    for uid in (ALICE, BOB):
        await api("/user/token", {"uid": uid, "token": f"t-{uid}", "device_flag": 2, "device_level": 1})

    try:
        await Person(ALICE, "wrong").im.connect()
        raise AssertionError("a wrong token was accepted")
    except WKIMError as error:
        assert error.code == 2, error.code
    step("a wrong token is refused")

    alice, bob = Person(ALICE, f"t-{ALICE}"), Person(BOB, f"t-{BOB}")
    async with alice.im, bob.im:
        step("both connect with their tokens")

        assert await alice.send(BOB, WKIMChannelType.PERSON, "hello bob") == 1
        message = await bob.received("hello bob")
        assert (message["fromUid"], message["channelId"], message["messageSeq"]) == (ALICE, ALICE, 1), message
        await bob.send(ALICE, WKIMChannelType.PERSON, "hello alice")
        await alice.received("hello alice")
        await alice.im.ping()
        step("they chat one to one, both ways")

        await api("/channel", {"channel_id": GROUP, "channel_type": 2, "subscribers": [ALICE, BOB]})
        await alice.send(GROUP, WKIMChannelType.GROUP, "hello group")
        assert (await bob.received("hello group"))["channelId"] == GROUP
        step("they chat in a group")

        await bob.im.disconnect()
        async with asyncio.timeout(10):
            while await api("/user/onlinestatus", [BOB]) != []:
                pass
        for n in (1, 2, 3):
            await alice.send(BOB, WKIMChannelType.PERSON, f"while away {n}")
        conversations = await api("/conversation/sync", {"uid": BOB, "msg_count": 10})
        chat = next(c for c in conversations if c["channel_id"] == ALICE)
        assert (chat["unread"], chat["last_msg_seq"]) == (3, 5), chat
        history = await api(
            "/channel/messagesync",
            {"login_uid": BOB, "channel_id": ALICE, "channel_type": 1, "limit": 50, "pull_mode": 1},
        )
        texts = [json.loads(base64.b64decode(m["payload"]))["content"] for m in history["messages"]]
        assert texts == ["hello bob", "hello alice", "while away 1", "while away 2", "while away 3"], texts
        step("bob finds what he missed in conversations and history")

        await bob.im.connect()
        await alice.send(BOB, WKIMChannelType.PERSON, "welcome back")
        await bob.received("welcome back")
        step("bob comes back")


asyncio.run(main())
