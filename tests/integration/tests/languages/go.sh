# Go: a build, then 1,000 goroutines, channels, timers, files, a child, a Unix socket.
export GOCACHE=$PWD/cache GOFLAGS=-mod=mod GO111MODULE=off GOPATH=$PWD/path
cat > main.go <<'G'
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func main() {
	var wg sync.WaitGroup
	results := make(chan int, 10)
	for i := 0; i < 1000; i++ {
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			time.Sleep(time.Duration(n%7) * time.Millisecond)
			runtime.Gosched()
			results <- n
		}(i)
	}
	go func() { wg.Wait(); close(results) }()
	sum := 0
	for n := range results {
		sum += n
	}
	fmt.Println(sum, runtime.NumCPU())
	var mu sync.Mutex
	count := 0
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := 0; k < 1000; k++ {
				mu.Lock()
				count++
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	fmt.Println(count)
	for i := 0; i < 20; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			os.WriteFile(fmt.Sprint("f", i), make([]byte, i*1000), 0o644)
		}(i)
	}
	wg.Wait()
	list, _ := os.ReadDir(".")
	total := int64(0)
	for _, e := range list {
		if info, err := e.Info(); err == nil && e.Name()[0] == 'f' {
			total += info.Size()
		}
	}
	fmt.Println(total)
	out, err := exec.Command("sh", "-c", "echo from a child; exit 4").Output()
	fmt.Print(string(out))
	fmt.Println(err)
	l, err := net.Listen("unix", "sock")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	echoed := 0
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := net.Dial("unix", "sock")
			if err != nil {
				return
			}
			c.Write(make([]byte, 5000))
			c.(*net.UnixConn).CloseWrite()
			b, _ := io.ReadAll(c)
			mu.Lock()
			echoed += len(b)
			mu.Unlock()
		}()
	}
	wg.Wait()
	fmt.Println(echoed)
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-told)
	defer func() { fmt.Println("recovered:", recover() != nil) }()
	var p *int
	fmt.Println(*p)
}
G
status go build -o main main.go
status ./main
