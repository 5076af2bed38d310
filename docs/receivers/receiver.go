// Receive batchwatch's webhooks with Go: verify, write down, answer, and only then work.
//
//	go mod init receiver && go mod tidy
//	WEBHOOK_SECRET=whsec_... go run receiver.go
package main

import (
	"cmp"
	"database/sql"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	_ "github.com/mattn/go-sqlite3"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	largest = 1 << 20 // bytes; no message of batchwatch is larger
	schema  = `
		CREATE TABLE IF NOT EXISTS inbox (
			id TEXT PRIMARY KEY, body TEXT NOT NULL, done INTEGER NOT NULL DEFAULT 0
		);
		CREATE TABLE IF NOT EXISTS batches (
			watch TEXT, id TEXT, transition INTEGER NOT NULL, status TEXT NOT NULL,
			PRIMARY KEY (watch, id)
		)`
	// Once, however often it comes.
	keep   = `INSERT INTO inbox (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`
	todo   = `SELECT id, body FROM inbox WHERE NOT done ORDER BY rowid`
	done   = `UPDATE inbox SET done = 1 WHERE id = ?`
	newest = `
		INSERT INTO batches (watch, id, transition, status) VALUES (?, ?, ?, ?)
		ON CONFLICT (watch, id) DO UPDATE
		SET transition = excluded.transition, status = excluded.status
		WHERE excluded.transition > batches.transition`
)

// event is what this receiver reads of a message; later versions have more, and other types.
type event struct {
	Data struct {
		Watch      string
		Transition int
		Batch      *struct{ ID, Status string }
	}
}

type receiver struct {
	db      *sql.DB
	webhook *standardwebhooks.Webhook
	news    chan struct{}
}

func (r *receiver) receive(w http.ResponseWriter, request *http.Request) {
	// The bytes that were signed, not JSON that was read and written.
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, largest))
	if err != nil {
		http.Error(w, "too large, or broken off", http.StatusRequestEntityTooLarge)
		return
	}
	if err := r.webhook.Verify(body, request.Header); err != nil {
		http.Error(w, "not verified", http.StatusUnauthorized)
		return
	}
	if _, err := r.db.Exec(keep, request.Header.Get("webhook-id"), string(body)); err != nil {
		log.Print(err)
		http.Error(w, "try again", http.StatusInternalServerError) // and it comes again
		return
	}
	select {
	case r.news <- struct{}{}:
	default: // there is a look to come, which finds this one, too
	}
	w.WriteHeader(http.StatusNoContent)
}

// workOn does what is not done yet, what an earlier process left among it.
func (r *receiver) workOn() {
	for {
		messages, err := r.undone()
		if err != nil {
			log.Print(err)
		}
		for _, m := range messages {
			if err := r.finish(m); err != nil {
				log.Print(m.id, ": ", err) // tried again with the next message, holds up no other
			}
		}
		<-r.news
	}
}

type message struct{ id, body string }

func (r *receiver) undone() (messages []message, err error) {
	rows, err := r.db.Query(todo)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m message
		if err := rows.Scan(&m.id, &m.body); err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, rows.Err()
}

func (r *receiver) finish(m message) error {
	tx, err := r.db.Begin() // the work and its mark are written together, or neither
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := work(tx, []byte(m.body)); err != nil {
		return err
	}
	if _, err := tx.Exec(done, m.id); err != nil {
		return err
	}
	return tx.Commit()
}

// work is where your own goes.
func work(tx *sql.Tx, body []byte) error {
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	if e.Data.Batch == nil {
		return nil // the troubles of a watch, and what later versions may send
	}
	batch := e.Data.Batch
	result, err := tx.Exec(newest, e.Data.Watch, batch.ID, e.Data.Transition, batch.Status)
	if err != nil {
		return err
	}
	isNews, err := result.RowsAffected() // none after something later
	if err == nil && isNews > 0 && e.Data.Watch != "certify" {
		log.Print(e.Data.Watch, " ", batch.ID, " ", e.Data.Transition, " ", batch.Status)
	}
	return err
}

func main() {
	webhook, err := standardwebhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	db, err := sql.Open("sqlite3", cmp.Or(os.Getenv("DATABASE"), "inbox.db")+"?_journal=WAL")
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(1) // one writer: SQLite has no more
	if _, err := db.Exec(schema); err != nil {
		log.Fatal(err)
	}
	r := &receiver{db, webhook, make(chan struct{}, 1)}
	go r.workOn()
	http.HandleFunc("POST /hooks/batches", r.receive)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8000"), nil))
}
