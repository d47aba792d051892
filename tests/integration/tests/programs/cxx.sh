# C++ with the threads, locks, futures, exceptions and file system of its library.
cat > t.cc <<'C'
#include <algorithm>
#include <atomic>
#include <barrier>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <numeric>
#include <shared_mutex>
#include <thread>
#include <vector>
using namespace std;
template <class T> class Queue { mutex m; condition_variable more, room; deque<T> q; public:
  void put(T t) { unique_lock l(m); room.wait(l, [&] { return q.size() < 16; }); q.push_back(t); more.notify_one(); }
  T take() { unique_lock l(m); more.wait(l, [&] { return !q.empty(); }); T t = q.front(); q.pop_front(); room.notify_one(); return t; } };
struct Tls { int n = 0; ~Tls() { ended++; } static atomic<int> ended; }; atomic<int> Tls::ended; thread_local Tls tls;
static void sort_both(vector<unsigned> &v, size_t a, size_t b, int deep) { if (deep == 0) { sort(v.begin() + a, v.begin() + b); return; } size_t m = (a + b) / 2; thread t([&] { sort_both(v, a, m, deep - 1); }); sort_both(v, m, b, deep - 1); t.join(); inplace_merge(v.begin() + a, v.begin() + m, v.begin() + b); }
int main() {
  Queue<long> q, done; vector<thread> ts; atomic<long> total{0};
  for (int i = 0; i < 4; i++) ts.emplace_back([&] { for (;;) { long n = q.take(); if (n < 0) break; long s = 0; for (long k = 0; k < n; k++) s += k * k % 7; total += s; tls.n++; } });
  for (int i = 0; i < 3000; i++) q.put(i); for (int i = 0; i < 4; i++) q.put(-1); for (auto &t : ts) t.join(); cout << total << " tls " << Tls::ended << endl;
  vector<unsigned> v(2000000); unsigned x = 1; for (auto &e : v) e = x = x * 1664525 + 1013904223; sort_both(v, 0, v.size(), 3); cout << is_sorted(v.begin(), v.end()) << " " << v[1000000] << endl;
  vector<future<int>> fs; for (int i = 0; i < 20; i++) fs.push_back(async(launch::async, [i] { if (i == 13) throw runtime_error("thirteen"); return i * i; })); int s = 0; for (auto &f : fs) try { s += f.get(); } catch (exception &e) { cout << e.what() << endl; } cout << s << endl;
  shared_mutex sm; map<int, int> m; vector<thread> rw; atomic<long> seen{0}; for (int i = 0; i < 6; i++) rw.emplace_back([&, i] { for (int k = 0; k < 500; k++) if (i < 2) { unique_lock l(sm); m[k] += i + 1; } else { shared_lock l(sm); if (m.count(k)) seen += 0; } }); for (auto &t : rw) t.join(); cout << accumulate(m.begin(), m.end(), 0, [](int a, auto &p) { return a + p.second; }) << endl;
  barrier b(4); atomic<int> phase{0}; vector<thread> bs; for (int i = 0; i < 4; i++) bs.emplace_back([&] { for (int k = 0; k < 50; k++) { phase++; b.arrive_and_wait(); if (phase % 4) cout << "late" << endl; b.arrive_and_wait(); } }); for (auto &t : bs) t.join(); cout << phase << endl;
  once_flag once; int calls = 0; vector<thread> os; for (int i = 0; i < 8; i++) os.emplace_back([&] { call_once(once, [&] { calls++; }); }); for (auto &t : os) t.join(); cout << calls << endl;
  mutex tm; tm.lock(); thread late([&] { auto until = chrono::steady_clock::now() + 30ms; timed_mutex t2; t2.lock(); cout << "cond " << (chrono::steady_clock::now() < until) << endl; condition_variable cv; mutex cm; unique_lock l(cm); cout << (cv.wait_for(l, 20ms) == cv_status::timeout) << endl; }); late.join();
  for (int i = 0; i < 200; i++) thread([] {}).join(); vector<thread> many; for (int i = 0; i < 100; i++) many.emplace_back([&] { this_thread::sleep_for(5ms); total++; }); for (auto &t : many) t.join();
  namespace fs2 = filesystem; fs2::create_directories("a/b/c"); ofstream("a/b/f") << "text"; fs2::copy("a", "z", fs2::copy_options::recursive); fs2::rename("z/b/f", "z/g"); vector<string> names; for (auto &e : fs2::recursive_directory_iterator("z")) names.push_back(e.path().string()); sort(names.begin(), names.end()); for (auto &n : names) cout << n << " "; cout << fs2::file_size("z/g") << " " << fs2::remove_all("a") << endl; error_code ec; fs2::remove("z", ec); cout << ec.message() << endl;
  try { thread([] { this_thread::yield(); }).join(); throw vector<int>{1, 2}; } catch (vector<int> &e) { cout << e.size() << endl; } cout << flush; thread([] { throw 1; }).join(); }
C
g++ -std=c++20 -O1 -pthread -o t t.cc; status ./t
