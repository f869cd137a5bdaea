// Two people chat with the official Go SDK; the server's API plays their back-end.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	wkproto "github.com/WuKongIM/WuKongIMGoProto"
	"github.com/WuKongIM/WuKongIMGoSDK/pkg/wksdk"
)

const patience = 10 * time.Second

func check(ok bool, format string, args ...any) {
	if !ok {
		fmt.Printf("  FAILED: "+format+"\n", args...)
		os.Exit(1)
	}
}

func step(name string) { fmt.Println("  ok:", name) }

func api(path string, body, out any) {
	data, _ := json.Marshal(body)
	response, err := http.Post(os.Getenv("WK_API")+path, "application/json", bytes.NewReader(data))
	check(err == nil, "%s: %v", path, err)
	defer response.Body.Close()
	check(response.StatusCode == 200, "%s: status %d", path, response.StatusCode)
	if out != nil {
		check(json.NewDecoder(response.Body).Decode(out) == nil, "%s: not JSON", path)
	}
}

type person struct {
	client *wksdk.Client
	inbox  chan *wksdk.Message
}

func connect(uid, token string) (*person, error) {
	p := &person{
		client: wksdk.NewClient("tcp://"+os.Getenv("WK_TCP"), wksdk.WithUID(uid), wksdk.WithToken(token), wksdk.WithReconnect(false)),
		inbox:  make(chan *wksdk.Message, 100),
	}
	p.client.OnMessage(func(m *wksdk.Message) { p.inbox <- m })
	return p, p.client.Connect()
}

func (p *person) send(channel string, kind uint8, text string) uint32 {
	ack, err := p.client.SendMessage([]byte(text), wkproto.Channel{ChannelID: channel, ChannelType: kind})
	check(err == nil, "send %q: %v", text, err)
	check(ack.ReasonCode == wkproto.ReasonSuccess, "send %q: reason %v", text, ack.ReasonCode)
	return ack.MessageSeq
}

func (p *person) received(text string) *wksdk.Message {
	select {
	case m := <-p.inbox:
		check(string(m.Payload) == text, "received %q, not %q", m.Payload, text)
		return m
	case <-time.After(patience):
		check(false, "no message %q", text)
		return nil
	}
}

func main() {
	tag := fmt.Sprintf("go%d", os.Getpid())
	alice, bob, group := tag+"-alice", tag+"-bob", tag+"-group"
	for _, uid := range []string{alice, bob} {
		api("/user/token", map[string]any{"uid": uid, "token": "t-" + uid, "device_flag": 0, "device_level": 1}, nil)
	}

	_, err := connect(alice, "wrong")
	check(err != nil, "a wrong token was accepted")
	step("a wrong token is refused")

	a, err := connect(alice, "t-"+alice)
	check(err == nil, "connect: %v", err)
	b, err := connect(bob, "t-"+bob)
	check(err == nil, "connect: %v", err)
	step("both connect with their tokens")

	check(a.send(bob, wkproto.ChannelTypePerson, "hello bob") == 1, "first seq is 1")
	m := b.received("hello bob")
	check(m.FromUID == alice && m.ChannelID == alice && m.MessageSeq == 1, "bob sees %v", m.RecvPacket)
	b.send(alice, wkproto.ChannelTypePerson, "hello alice")
	a.received("hello alice")
	step("they chat one to one, both ways")

	api("/channel", map[string]any{"channel_id": group, "channel_type": 2, "subscribers": []string{alice, bob}}, nil)
	a.send(group, wkproto.ChannelTypeGroup, "hello group")
	check(b.received("hello group").ChannelID == group, "the group's id")
	step("they chat in a group")

	_ = b.client.Disconnect()
	for end := time.Now().Add(patience); ; {
		var online []any
		api("/user/onlinestatus", []string{bob}, &online)
		if len(online) == 0 {
			break
		}
		check(time.Now().Before(end), "bob goes offline")
	}
	for n := 1; n <= 3; n++ {
		a.send(bob, wkproto.ChannelTypePerson, fmt.Sprintf("while away %d", n))
	}
	var conversations []struct {
		ChannelID  string `json:"channel_id"`
		Unread     int    `json:"unread"`
		LastMsgSeq int    `json:"last_msg_seq"`
	}
	api("/conversation/sync", map[string]any{"uid": bob, "msg_count": 10}, &conversations)
	found := false
	for _, c := range conversations {
		if c.ChannelID == alice {
			found = c.Unread == 3 && c.LastMsgSeq == 5
		}
	}
	check(found, "bob's conversations: %v", conversations)
	var history struct {
		Messages []struct {
			Payload []byte `json:"payload"`
		} `json:"messages"`
	}
	api("/channel/messagesync", map[string]any{"login_uid": bob, "channel_id": alice, "channel_type": 1, "limit": 50, "pull_mode": 1}, &history)
	want := []string{"hello bob", "hello alice", "while away 1", "while away 2", "while away 3"}
	check(len(history.Messages) == len(want), "history has %d messages", len(history.Messages))
	for i, m := range history.Messages {
		check(string(m.Payload) == want[i], "history[%d] = %q", i, m.Payload)
	}
	step("bob finds what he missed in conversations and history")

	b, err = connect(bob, "t-"+bob)
	check(err == nil, "reconnect: %v", err)
	a.send(bob, wkproto.ChannelTypePerson, "welcome back")
	b.received("welcome back")
	step("bob comes back")
}
