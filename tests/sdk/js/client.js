// One SDK instance is one process (the SDK is a singleton): commands come by IPC, what the SDK reports goes back.
import { WebSocket } from "ws";
globalThis.WebSocket = WebSocket;
const log = console.log;
console.log = (...args) => process.env.WK_SDK_LOG && log(...args);
import { WKSDK as module, Channel, MessageText } from "wukongimjssdk/lib/sdk";

const sdk = module.shared();
sdk.config.addr = process.env.WK_WS;
sdk.config.uid = process.env.WK_UID;
sdk.config.token = process.env.WK_TOKEN;
sdk.connectManager.addConnectStatusListener((status, reason) => process.send({ event: "status", status, reason }));
sdk.chatManager.addMessageListener((message) => {
  if (message.send) return; // the SDK reports what it sends, too
  process.send({ event: "message", from: message.fromUID, channel: message.channel.channelID, seq: message.messageSeq, text: message.content.text });
});
sdk.chatManager.addMessageStatusListener((ack) => process.send({ event: "ack", reason: ack.reasonCode, seq: ack.messageSeq, clientSeq: ack.clientSeq }));
process.on("message", ({ command, channel, type, text }) => {
  if (command === "connect") sdk.connect();
  if (command === "disconnect") sdk.disconnect();
  if (command === "send") sdk.chatManager.send(new MessageText(text), new Channel(channel, type));
});
