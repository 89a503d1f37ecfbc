// An HTTP server that shuts down as Go's documentation shows it.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})
	http.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		for number := 0; number < 4; number++ {
			fmt.Fprintf(w, "part %d\n", number)
			w.(http.Flusher).Flush()
			time.Sleep(time.Second)
		}
	})
	server := &http.Server{Addr: ":8080"}
	asked, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan struct{})
	go func() {
		<-asked.Done()
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		close(done)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
}
