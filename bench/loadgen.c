/* The benchmark's load generator: framed requests over N connections, every reply checked.
 *
 *     loadgen --port N --request FILE [--reply FILE] [--connections 1] [--depth 1] [--warmup 0] [--seconds 5]
 *             [--requests 0] [--timeout 10] [--server-pid PID] [--cpu N]
 *     loadgen --percentiles < FILE      the latency histogram over numbers (nanoseconds) from stdin, for its test
 *
 * One request (FILE as it is, frame length included) is repeated; each connection keeps `depth` of them unanswered.
 * Phases: open (connections are opened one by one, each with one exchange, so that the server has accepted all of
 * them), warm-up, the measured window (ends after --seconds, or at --requests replies when that comes first), and a
 * drain in which what is still unanswered must be answered. With --reply each reply must equal FILE; without, it must
 * be a frame that holds a strict Thrift binary message of type REPLY.
 *
 * Prints one JSON object and exits 0. The first broken, unasked or missing reply ends the run with {"error": "..."} and
 * exit 1, as a measurement with wrong answers is not one. No run outlasts its window by more than OPEN_SECONDS plus
 * twice --timeout.
 *
 * With --server-pid the window also has the server's CPU time, read by the kernel's per-process clock (nanoseconds,
 * all threads, ended ones too) at the very start and end of the window, and its resident memory while the connections
 * are open.
 */
#define _GNU_SOURCE
#include "histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 256 * 1024, /* one recv; several pipelined replies of the largest message */
    EVENTS = 1024,
    HEAD_BYTES = 8,          /* frame length and the word with the message's version and type */
    MAX_FRAME = 64 << 20,    /* a longer reply is taken for garbage in the length */
    MAX_FILE = 64 << 20,
    MAX_CONNECTIONS = 60000, /* loopback has about that many ports for one server address */
    MAX_DEPTH = 1024,
    MAX_SECONDS = 3600,
    OPEN_SECONDS = 30,       /* for all connections together */
    THRIFT_REPLY = 2,
};

struct bytes {
    uint8_t *data;
    size_t size;
};

struct connection {
    int fd;
    unsigned number;
    unsigned waiting;    /* requests without a reply yet */
    unsigned oldest;     /* index in sent_at of the one that is answered next */
    uint64_t *sent_at;   /* ring of `depth` instants */
    size_t unsent;       /* bytes of the waiting requests the kernel did not take yet */
    bool watched_write;
    size_t got;          /* bytes of the current reply */
    size_t reply_size;   /* known once its frame length is in */
    uint8_t head[HEAD_BYTES];
};

static struct {
    unsigned port, connections, depth, cpu;
    bool pinned, percentiles;
    double warmup, seconds, timeout;
    uint64_t requests;
    pid_t server;
    const char *request_file, *reply_file;
} options = {.connections = 1, .depth = 1, .seconds = 5, .timeout = 10};

static struct bytes request, reply;
static struct bytes requests; /* `depth` copies in a row, so that one send can take them all */
static struct histogram latency;
static uint64_t total_waiting;
static bool issuing = true;
static int epoll_fd;
static uint8_t buffer[READ_BYTES];

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20) *c = '\'';
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    _exit(1);
}

/* Last resort: the phases watch the clock themselves, this ends a run in which one of them could not. */
static void on_alarm(int signal_number) {
    (void)signal_number;
    static const char text[] = "{\"error\": \"the run did not end in time\"}\n";
    ssize_t ignored = write(STDOUT_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(1);
}

static uint64_t nanoseconds(clockid_t clock) {
    struct timespec t;
    if (clock_gettime(clock, &t) < 0) fail("cannot read clock %d (the server ended?): %s", clock, strerror(errno));
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now(void) { return nanoseconds(CLOCK_MONOTONIC); }

static uint64_t after(uint64_t start, double seconds) { return start + (uint64_t)(seconds * 1e9); }

static uint64_t server_cpu(void) {
    if (options.server == 0) return 0;
    clockid_t clock;
    int error = clock_getcpuclockid(options.server, &clock);
    if (error != 0) fail("cannot read the CPU time of process %d: %s", (int)options.server, strerror(error));
    return nanoseconds(clock);
}

/* Resident bytes of the server, 0 when unknown. smaps_rollup is exact; statm may be some hundred KiB off. */
static uint64_t server_rss(void) {
    if (options.server == 0) return 0;
    char line[256];
    snprintf(line, sizeof line, "/proc/%d/smaps_rollup", (int)options.server);
    FILE *file = fopen(line, "r");
    uint64_t kib = 0;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Rss: %" SCNu64, &kib) == 1) break;
    if (file != NULL) fclose(file);
    return kib * 1024;
}

static struct bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("cannot open %s: %s", path, strerror(errno));
    struct bytes b = {0};
    if (fseek(file, 0, SEEK_END) == 0) {
        long size = ftell(file);
        if (size < HEAD_BYTES || size > MAX_FILE) fail("%s: %ld bytes are no framed message", path, size);
        b.size = (size_t)size;
    }
    rewind(file);
    b.data = malloc(b.size);
    if (b.data == NULL || fread(b.data, 1, b.size, file) != b.size) fail("cannot read %s", path);
    fclose(file);
    return b;
}

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Takes the first bytes of a reply into c->head; checks and keeps what they say once all of them are in. */
static void take_head(struct connection *c, const uint8_t *data, size_t n) {
    for (size_t i = 0; i < n && c->got + i < HEAD_BYTES; i++) c->head[c->got + i] = data[i];
    if (c->got + n < HEAD_BYTES) return;
    uint32_t frame = big_endian(c->head);
    if (frame < HEAD_BYTES - 4 || frame > MAX_FRAME)
        fail("connection %u: a reply declares %" PRIu32 " bytes", c->number, frame);
    c->reply_size = 4 + (size_t)frame;
    if (reply.data != NULL) {
        if (c->reply_size != reply.size)
            fail("connection %u: a reply of %zu bytes, expected %zu%s", c->number, c->reply_size, reply.size,
                 c->head[7] == 3 ? " (it is a Thrift exception)" : "");
    } else if (c->head[4] != 0x80 || c->head[5] != 1 || c->head[7] != THRIFT_REPLY) {
        fail("connection %u: a reply begins with %08" PRIx32 ", expected 80010002", c->number,
             big_endian(c->head + 4));
    }
}

/* Checks n received bytes against what may come; returns how many replies they completed. */
static unsigned take_replies(struct connection *c, const uint8_t *data, size_t n, uint64_t instant) {
    unsigned complete = 0;
    while (n > 0) {
        if (c->waiting == 0) fail("connection %u: a reply nobody asked for", c->number);
        size_t limit = c->reply_size ? c->reply_size : HEAD_BYTES;
        size_t part = limit - c->got < n ? limit - c->got : n;
        if (c->reply_size == 0) take_head(c, data, part);
        if (reply.data != NULL && memcmp(data, reply.data + c->got, part) != 0) {
            size_t i = 0;
            while (data[i] == reply.data[c->got + i]) i++;
            fail("connection %u: byte %zu of a reply is 0x%02x, expected 0x%02x", c->number, c->got + i, data[i],
                 reply.data[c->got + i]);
        }
        c->got += part;
        data += part;
        n -= part;
        if (c->reply_size == 0 || c->got < c->reply_size) continue;
        c->got = c->reply_size = 0;
        record(&latency, instant - c->sent_at[c->oldest]);
        c->oldest = (c->oldest + 1) % options.depth;
        c->waiting--;
        total_waiting--;
        complete++;
    }
    return complete;
}

static void send_requests(struct connection *c) {
    while (c->unsent > 0) {
        size_t begun = c->unsent % request.size;
        ssize_t n = send(c->fd, requests.data + (begun ? request.size - begun : 0), c->unsent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) break;
            fail("connection %u: send: %s", c->number, strerror(errno));
        }
        c->unsent -= (size_t)n;
    }
    if (c->watched_write != (c->unsent > 0)) {
        c->watched_write = c->unsent > 0;
        struct epoll_event event = {.events = c->watched_write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
    }
}

static void issue(struct connection *c, unsigned count, uint64_t instant) {
    for (unsigned i = 0; i < count; i++) c->sent_at[(c->oldest + c->waiting++) % options.depth] = instant;
    total_waiting += count;
    c->unsent += count * request.size;
    send_requests(c);
}

/* One recv; while the run issues requests, new ones replace those it completed. Returns how many were completed. */
static unsigned receive(struct connection *c) {
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return 0;
        fail("connection %u: recv: %s", c->number, strerror(errno));
    }
    if (n == 0) fail("connection %u: closed by the server, %u unanswered", c->number, c->waiting);
    uint64_t instant = now();
    unsigned complete = take_replies(c, buffer, (size_t)n, instant);
    if (issuing && complete > 0) issue(c, complete, instant);
    return complete;
}

static void open_connection(struct connection *c, unsigned number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->number = number;
    c->sent_at = calloc(options.depth, sizeof *c->sent_at);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || c->sent_at == NULL) fail("connection %u: %s", number, strerror(errno));
    struct timeval limit = {.tv_sec = (time_t)options.timeout + 1};
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* bounds connect, too */
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connection %u: cannot connect to port %u: %s", number, options.port, strerror(errno));
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

/* Serves events until the instant `end`, until `enough` replies (0: no limit) or, when draining, until none waits. */
static void run_until(uint64_t end, uint64_t enough, bool draining) {
    static struct epoll_event events[EVENTS];
    uint64_t last_reply = now();
    while (!(draining && total_waiting == 0)) {
        uint64_t instant = now();
        if (instant >= end || (enough > 0 && latency.count >= enough)) return;
        if (instant > after(last_reply, options.timeout))
            fail("no reply for %g s, %" PRIu64 " unanswered", options.timeout, total_waiting);
        uint64_t milliseconds = (end - instant) / 1000000 + 1;
        int n = epoll_wait(epoll_fd, events, EVENTS, milliseconds < 1000 ? (int)milliseconds : 1000);
        if (n < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_requests(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT && receive(c) > 0) last_reply = now();
        }
    }
}

static struct connection *open_all(void) {
    struct connection *all = calloc(options.connections, sizeof *all);
    if (all == NULL) fail("out of memory");
    uint64_t end = after(now(), OPEN_SECONDS);
    issuing = false;
    for (unsigned i = 0; i < options.connections; i++) {
        open_connection(&all[i], i);
        issue(&all[i], 1, now());
        uint64_t reply_end = after(now(), options.timeout);
        run_until(reply_end < end ? reply_end : end, 0, true);
        if (total_waiting > 0) fail("connection %u: no reply to its first request", i);
    }
    issuing = true;
    return all;
}

static void print_latency(void) {
    printf("\"latency_ns\": {\"min\": %" PRIu64 ", \"mean\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p90\": %" PRIu64
           ", \"p99\": %" PRIu64 ", \"p999\": %" PRIu64 ", \"max\": %" PRIu64 "}",
           latency.min, latency.count ? latency.sum / latency.count : 0, percentile(&latency, 0.5),
           percentile(&latency, 0.9), percentile(&latency, 0.99), percentile(&latency, 0.999), latency.max);
}

static int print_percentiles(void) {
    uint64_t value;
    while (scanf("%" SCNu64, &value) == 1) record(&latency, value);
    printf("{\"count\": %" PRIu64 ", ", latency.count);
    print_latency();
    printf("}\n");
    return 0;
}

static double number(const char *name, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !(value >= low && value <= high))
        fail("%s %s: expected a number from %g to %g", name, text, low, high);
    return value;
}

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--percentiles") == 0) {
            options.percentiles = true;
            continue;
        }
        if (++i == argc) fail("%s: unknown option, or its value is missing", name);
        const char *text = argv[i];
        if (strcmp(name, "--port") == 0) options.port = (unsigned)number(name, text, 1, 65535);
        else if (strcmp(name, "--request") == 0) options.request_file = text;
        else if (strcmp(name, "--reply") == 0) options.reply_file = text;
        else if (strcmp(name, "--connections") == 0)
            options.connections = (unsigned)number(name, text, 1, MAX_CONNECTIONS);
        else if (strcmp(name, "--depth") == 0) options.depth = (unsigned)number(name, text, 1, MAX_DEPTH);
        else if (strcmp(name, "--warmup") == 0) options.warmup = number(name, text, 0, MAX_SECONDS);
        else if (strcmp(name, "--seconds") == 0) options.seconds = number(name, text, 0.001, MAX_SECONDS);
        else if (strcmp(name, "--requests") == 0) options.requests = (uint64_t)number(name, text, 0, 1e15);
        else if (strcmp(name, "--timeout") == 0) options.timeout = number(name, text, 0.001, MAX_SECONDS);
        else if (strcmp(name, "--server-pid") == 0) options.server = (pid_t)number(name, text, 1, 1 << 30);
        else if (strcmp(name, "--cpu") == 0) {
            options.cpu = (unsigned)number(name, text, 0, CPU_SETSIZE - 1);
            options.pinned = true;
        } else fail("%s: unknown option", name);
    }
    if (!options.percentiles && (options.port == 0 || options.request_file == NULL))
        fail("--port and --request are needed");
}

int main(int argc, char **argv) {
    parse(argc, argv);
    if (options.percentiles) return print_percentiles();
    if (options.pinned) {
        cpu_set_t cpus;
        CPU_ZERO(&cpus);
        CPU_SET(options.cpu, &cpus);
        if (sched_setaffinity(0, sizeof cpus, &cpus) < 0) fail("--cpu %u: %s", options.cpu, strerror(errno));
    }
    signal(SIGALRM, on_alarm);
    alarm((unsigned)(OPEN_SECONDS + options.warmup + options.seconds + 2 * options.timeout) + 1);

    request = read_file(options.request_file);
    if (options.reply_file != NULL) reply = read_file(options.reply_file);
    requests.size = request.size * options.depth;
    requests.data = malloc(requests.size);
    if (requests.data == NULL) fail("out of memory");
    for (unsigned i = 0; i < options.depth; i++) memcpy(requests.data + i * request.size, request.data, request.size);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) fail("epoll_create1: %s", strerror(errno));

    struct connection *all = open_all();
    for (unsigned i = 0; i < options.connections; i++) issue(&all[i], options.depth, now());
    run_until(after(now(), options.warmup), 0, false);

    memset(&latency, 0, sizeof latency);
    uint64_t start = now(), cpu_start = server_cpu(), own_start = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    run_until(after(start, options.seconds), options.requests, false);
    uint64_t own = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own_start, cpu = server_cpu() - cpu_start;
    uint64_t wall = now() - start;
    uint64_t rss = server_rss();
    struct histogram measured = latency;

    issuing = false;
    run_until(after(now(), options.timeout), 0, true);
    if (total_waiting > 0) fail("%" PRIu64 " requests were never answered", total_waiting);
    latency = measured;
    printf("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, \"connections\": %u, \"depth\": %u, ", latency.count,
           (double)wall / 1e9, options.connections, options.depth);
    print_latency();
    printf(", \"generator\": {\"cpu_ns\": %" PRIu64 "}", own);
    if (options.server != 0) printf(", \"server\": {\"cpu_ns\": %" PRIu64 ", \"rss_bytes\": %" PRIu64 "}", cpu, rss);
    printf("}\n");
    return 0;
}
