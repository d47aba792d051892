# java: the compiler, then a pool of threads, files, processes, memory.
cat > Main.java <<'J'
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
public class Main {
  public static void main(String[] a) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(16);
    AtomicLong sum = new AtomicLong();
    List<Future<Integer>> all = new ArrayList<>();
    for (int i = 0; i < 200; i++) { final int n = i; all.add(pool.submit(() -> { sum.addAndGet(n); return n * n; })); }
    long squares = 0;
    for (Future<Integer> f : all) squares += f.get();
    pool.shutdown();
    System.out.println(pool.awaitTermination(10, TimeUnit.SECONDS) + " " + sum + " " + squares);
    System.out.println(IntStream.range(0, 1_000_000).parallel().filter(i -> i % 7 == 0).count());
    Path p = Files.createDirectories(Paths.get("d/e"));
    for (int i = 0; i < 100; i++) Files.writeString(p.resolve("f" + i), "x".repeat(i));
    try (Stream<Path> s = Files.walk(Paths.get("d"))) { System.out.println(s.filter(Files::isRegularFile).mapToLong(f -> f.toFile().length()).sum()); }
    Process c = new ProcessBuilder("sh", "-c", "cat; exit 3").start();
    c.getOutputStream().write("through a pipe\n".getBytes()); c.getOutputStream().close();
    System.out.print(new String(c.getInputStream().readAllBytes())); System.out.println(c.waitFor());
    List<byte[]> garbage = new ArrayList<>();
    for (int i = 0; i < 400; i++) { garbage.add(new byte[1 << 18]); if (garbage.size() > 40) garbage.clear(); }
    Object lock = new Object();
    int[] turn = {0};
    Thread[] ts = new Thread[4];
    for (int t = 0; t < 4; t++) { final int me = t; ts[t] = new Thread(() -> { for (int i = 0; i < 200; i++) synchronized (lock) { while (turn[0] % 4 != me) try { lock.wait(); } catch (InterruptedException e) { return; } turn[0]++; lock.notifyAll(); } }); ts[t].start(); }
    for (Thread t : ts) t.join();
    System.out.println(turn[0] + " " + Runtime.getRuntime().availableProcessors());
    try { int[] none = new int[1]; none[Integer.parseInt("5")] = 1; } catch (ArrayIndexOutOfBoundsException e) { System.out.println(e.getMessage()); }
    try { ((Object) null).toString(); } catch (NullPointerException e) { System.out.println("null"); }
  }
}
J
status javac Main.java
status java -Xmx128m Main
