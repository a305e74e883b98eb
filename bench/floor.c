/* The floor of the benchmark: an epoll loop that sends back the bytes it receives and does nothing else.
 *
 *     floor [--port N] [--cpu N]
 *
 * Its CPU time per request is what the kernel charges any single-threaded server for one recv, one send and a share
 * of an epoll_wait; no server that answers over TCP can be cheaper without using fewer system calls. It prints
 * {"port": N, "pid": N} when it listens, and ends with its parent or on SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 * 1024, /* one recv takes the largest message of the benchmark whole */
    EVENTS = 512,           /* connections served per epoll_wait */
    BACKLOG = 1024,
};

/* Bytes of one connection that the kernel did not take yet. While there are any, the connection is not read. */
struct connection {
    int fd;
    size_t unsent, sent;
    char *pending;
};

static char buffer[READ_BYTES];

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->pending);
    free(c);
}

static void watch(int epoll, struct connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event) < 0) die("epoll_ctl");
}

static void accept_all(int epoll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
            die("accept4");
        }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL) die("calloc");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

/* Returns how many of the n bytes the kernel took, or -1 when the connection is gone. */
static ssize_t send_some(int fd, const char *bytes, size_t n) {
    ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static void echo(int epoll, struct connection *c) {
    ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        drop(c);
        return;
    }
    ssize_t sent = send_some(c->fd, buffer, (size_t)n);
    if (sent < 0) {
        drop(c);
    } else if (sent < n) {
        c->unsent = (size_t)(n - sent);
        c->sent = 0;
        c->pending = malloc(c->unsent);
        if (c->pending == NULL) die("malloc");
        memcpy(c->pending, buffer + sent, c->unsent);
        watch(epoll, c, EPOLLOUT);
    }
}

static void send_pending(int epoll, struct connection *c) {
    ssize_t sent = send_some(c->fd, c->pending + c->sent, c->unsent);
    if (sent < 0) {
        drop(c);
        return;
    }
    c->sent += (size_t)sent;
    c->unsent -= (size_t)sent;
    if (c->unsent == 0) {
        free(c->pending);
        c->pending = NULL;
        watch(epoll, c, EPOLLIN);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) {
            fprintf(stderr, "usage: floor [--port N] [--cpu N]\n");
            return 2;
        }
        int number = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--port") == 0) {
            address.sin_port = htons((uint16_t)number);
        } else if (strcmp(argv[i], "--cpu") == 0) {
            cpu_set_t cpus;
            CPU_ZERO(&cpus);
            CPU_SET(number, &cpus);
            if (sched_setaffinity(0, sizeof cpus, &cpus) < 0) die("sched_setaffinity");
        } else {
            fprintf(stderr, "usage: floor [--port N] [--cpu N]\n");
            return 2;
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) die("socket");
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
    if (listen(listener, BACKLOG) < 0) die("listen");
    socklen_t length = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0) die("getsockname");

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll_ctl");
    printf("{\"port\": %d, \"pid\": %d}\n", ntohs(address.sin_port), (int)getpid());
    fflush(stdout);

    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) {
                accept_all(epoll, listener);
            } else if (c->unsent > 0) {
                send_pending(epoll, c);
            } else {
                echo(epoll, c);
            }
        }
    }
}
