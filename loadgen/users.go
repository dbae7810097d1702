package loadgen

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/launchgate/launchgate/internal/recording"
	"github.com/launchgate/launchgate/loadgen/client"
	"github.com/launchgate/launchgate/loadgen/prompt"
)

// users plays a closed-loop stage: each user of the share asks, waits for the answer,
// thinks, and asks again until the stage is over. It returns when the last answer has
// come.
//
// A question is due when the user has finished thinking, so a late send counts as the
// client's lag. A slow service delays the next question of a user, so a closed loop has
// no fixed rate.
func (d *drive) users(stage PlannedStage, index int) {
	if !d.sleepUntil(d.start + stage.Start) {
		return
	}
	d.observe(stage.observation(recording.ObsStageStarted, d.scenario, d.start+stage.Start, 0))
	end := d.start + stage.Start + stage.Duration
	var asked atomic.Int64
	var all sync.WaitGroup
	for u := d.share.Worker; u < stage.Users; u += d.share.Of {
		all.Go(func() {
			user := user{drive: d, stage: stage, end: end, asked: &asked,
				rng: d.plan.draw(stage, uint64(u)), seq: int64(index+1)<<40 + int64(u)}
			user.ask()
		})
	}
	all.Wait()
	if d.ctx.Err() == nil {
		d.observe(stage.observation(recording.ObsStageEnded, d.scenario, end, int(asked.Load())))
	}
}

// user is one user of a closed loop.
type user struct {
	*drive
	stage PlannedStage
	end   time.Duration // end of the stage
	asked *atomic.Int64 // requests of all users
	rng   *rand.Rand
	seq   int64
}

// ask holds conversations, one after the other, until the stage is over.
func (u *user) ask() {
	for u.clock.Now() < u.end {
		c := u.plan.class(u.rng)
		if !u.talk(c, c.maker.Talk(u.rng, uint64(u.seq))) {
			return
		}
	}
}

// talk asks the questions of a conversation, each with the messages before it. A
// question without an answer ends the conversation. talk is false when the stage is
// over.
func (u *user) talk(c class, t prompt.Asked) bool {
	messages := append([]client.Message(nil), t.Before...)
	for _, question := range t.Questions {
		due := u.clock.Now()
		if u.stage.Think > 0 {
			due += time.Duration(u.rng.ExpFloat64() * float64(u.stage.Think))
		}
		messages = append(messages, client.Message{Role: "user", Content: question})
		if due >= u.end || !u.sleepUntil(due) {
			return false
		}
		u.asked.Add(1)
		p := c.maker.Prompt(t, messages, u.rng)
		row, answer := u.client.Ask(u.ctx, p, u.clock, due)
		row.Seq, row.Class, row.Variant, row.PromptBytes, row.AskedTokens = u.seq, c.name, c.variant, int32(p.Bytes()), asked(p)
		u.seq += int64(u.stage.Users)
		u.give(u.stage, row)
		if !row.OK() {
			return u.ctx.Err() == nil
		}
		messages = append(messages, client.Message{Role: "assistant", Content: answer})
	}
	return true
}
