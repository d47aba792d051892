package main

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const many = 1000

// Every connection waits until all of a round are there; then each is an echo.
func serve() {
	var mu sync.Mutex
	there, all := 0, make(chan struct{})
	l, err := net.Listen("tcp", ":7000")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go http.ListenAndServe(":7001", mux())
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var word [1]byte
			if _, err := io.ReadFull(c, word[:]); err != nil {
				return
			}
			mu.Lock()
			there++
			gate := all
			if there == many {
				close(all)
				there, all = 0, make(chan struct{})
			}
			mu.Unlock()
			<-gate
			c.Write(word[:])
			io.Copy(c, c)
		}()
	}
}

func mux() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := md5.New()
		n, _ := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %x", n, h.Sum(nil))
	})
	m.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < 200; i++ {
			fmt.Fprintf(w, "%d %s\n", i, bytes.Repeat([]byte("x"), i*50))
			w.(http.Flusher).Flush()
		}
	})
	return m
}

func ask(host string) {
	var wg sync.WaitGroup
	var echoed, failed int64
	for i := 0; i < many; i++ {
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			ok := func() bool {
				c, err := net.DialTimeout("tcp", host+":7000", 60*time.Second)
				if err != nil {
					fmt.Println(err)
					return false
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(100 * time.Second))
				c.Write([]byte{7})
				var word [1]byte
				if _, err := io.ReadFull(c, word[:]); err != nil {
					fmt.Println(err)
					return false
				}
				data := bytes.Repeat(binary.BigEndian.AppendUint32(nil, uint32(n)), 1000)
				c.Write(data)
				c.(*net.TCPConn).CloseWrite()
				back, err := io.ReadAll(c)
				return err == nil && bytes.Equal(back, data)
			}()
			if ok {
				atomic.AddInt64(&echoed, 1)
			} else {
				atomic.AddInt64(&failed, 1)
			}
		}(i)
	}
	wg.Wait()
	fmt.Println("echoed", echoed, "failed", failed)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 50, MaxConnsPerHost: 50}}
	var right int64
	for i := 0; i < 300; i++ {
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			data := bytes.Repeat([]byte{byte(n)}, n*100)
			r, err := client.Post("http://"+host+":7001/sum", "text/plain", bytes.NewReader(data))
			if err != nil {
				fmt.Println(err)
				return
			}
			defer r.Body.Close()
			said, _ := io.ReadAll(r.Body)
			if string(said) == fmt.Sprintf("%d %x", len(data), md5.Sum(data)) {
				atomic.AddInt64(&right, 1)
			}
		}(i)
	}
	wg.Wait()
	fmt.Println("posted", right)
	d := net.Dialer{Timeout: 300 * time.Millisecond}
	_, err := d.Dial("tcp", host+":7009")
	fmt.Println(err)
	c, _ := net.Dial("tcp", host+":7000")
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	e, ok := err.(net.Error)
	fmt.Println("deadline", ok && e.Timeout())
}

func main() {
	if os.Args[1] == "serve" {
		serve()
	} else {
		ask(os.Args[2])
	}
}
