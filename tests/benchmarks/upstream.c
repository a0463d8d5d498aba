/* The model server of the benchmarks: HTTP/1.1 with keep-alive, one thread, epoll, loopback only.
 *
 * Any POST is answered 200 with exactly 300 bytes of JSON that tell how many body bytes arrived; on
 * the path of AWS Lambda's Invoke they come in the envelope of a function's answer. A POST with
 * `x-events: N` is answered with N server-sent events, one each 10 ms, that tell when they were sent
 * (CLOCK_MONOTONIC). Any GET or HEAD is answered 200 and the number of POSTs and events so far.
 * Bodies are framed by Content-Length, of any size, and thrown away as they come. It does as little
 * as it can, so that what a benchmark measures is the system in front of it.
 *
 *   upstream PORT          prints "ready" once it listens; runs until it is killed
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 16384, ANSWER = 300, ENVELOPE_MAX = 1024, READ_SIZE = 262144, EVENTS = 512, OUT_MAX = 4096 };
/* Events are sent in this many phases of TICK_NS, so that streams do not beat in time. */
enum { PHASES = 20, TICK_NS = 500000 };

struct connection {
    int fd;
    size_t head_length;              /* bytes of an incomplete head in `head` */
    unsigned long long body, left;   /* length of the body, and what has yet to arrive */
    int in_body, closing, is_post, is_head, is_invocation;
    unsigned long events, events_left;   /* of the stream that is the answer */
    struct connection *next, **link;     /* the streams of the same phase, while this is one */
    size_t out_from, out_to;         /* answers that the socket did not take yet */
    char head[HEAD_MAX + 1];
    char out[OUT_MAX];
};

static int poller;
static char incoming[READ_SIZE];
static unsigned long long posts, events_sent;
static struct connection *streams[PHASES];
static int timer, streaming;

/* The timer runs only while there are streams: it would disturb everything else. */
static void count_streams(int change) {
    static const struct itimerspec off, on = {{0, TICK_NS}, {0, TICK_NS}};
    int before = streaming;
    streaming += change;
    if (!before != !streaming) timerfd_settime(timer, 0, streaming ? &on : &off, NULL);
}

static void end_stream(struct connection *c) {
    if (!c->link) return;
    count_streams(-1);
    *c->link = c->next;
    if (c->next) c->next->link = c->link;
    c->link = NULL;
    c->events_left = 0;
}

static void drop(struct connection *c) {
    end_stream(c);
    close(c->fd);
    free(c);
}

/* Returns 0 when the connection is broken. */
static int flush_answers(struct connection *c) {
    while (c->out_from < c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            return errno == EAGAIN;
        }
        c->out_from += (size_t)sent;
    }
    c->out_from = c->out_to = 0;
    return !c->closing || c->link;
}

/* Queues an answer; fails when a client pipelines without reading. */
static int append(struct connection *c, const char *text, size_t length) {
    if (c->out_to + length > OUT_MAX) return 0;
    memcpy(c->out + c->out_to, text, length);
    c->out_to += length;
    return 1;
}

/* Puts the answer into what AWS Lambda's Invoke gives for it. Returns the new length. */
static size_t envelop(char *body) {
    static const char before[] = "{\"statusCode\":200,\"headers\":{\"content-type\":"
                                 "\"application/json\"},\"isBase64Encoded\":false,\"body\":\"";
    char plain[ANSWER], *to = body + sizeof before - 1;
    memcpy(plain, body, ANSWER);
    memcpy(body, before, sizeof before - 1);
    for (int i = 0; i < ANSWER; i++) {
        if (plain[i] == '"') *to++ = '\\';
        *to++ = plain[i];
    }
    *to++ = '"', *to++ = '}';
    return (size_t)(to - body);
}

/* Queues the head of a stream, whose events come with the ticks. */
static int begin_stream(struct connection *c) {
    static unsigned phase;
    /* As servers of models say it to nginx, which else waits until a buffer is full. */
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    struct connection **first = &streams[phase++ % PHASES];
    c->events_left = c->events;
    c->next = *first, c->link = first;
    if (c->next) c->next->link = &c->next;
    *first = c;
    count_streams(1);
    return append(c, head, sizeof head - 1);
}

/* Sends the next event of a stream, and its end after the last. Returns 0 when it is broken. */
static int send_event(struct connection *c) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char event[128], chunk[160];
    int length = snprintf(event, sizeof event, "data: {\"number\":%lu,\"sent_ns\":%lld}\n\n",
                          c->events - c->events_left,
                          (long long)now.tv_sec * 1000000000 + now.tv_nsec);
    int size = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)length, event);
    events_sent++;
    if (!append(c, chunk, (size_t)size)) return 0;
    if (--c->events_left == 0) {
        end_stream(c);
        if (!append(c, "0\r\n\r\n", 5)) return 0;
    }
    return flush_answers(c);
}

/* One phase's streams get an event. A broken one is shut down only: its connection may be among
 * the events that are yet to be looked at, and is dropped when it reports its end. */
static void tick(void) {
    static unsigned long long done;
    unsigned long long ticks;
    if (read(timer, &ticks, sizeof ticks) != sizeof ticks) return;
    for (; ticks > 0; ticks--) {
        struct connection *next;
        for (struct connection *c = streams[done++ % PHASES]; c; c = next) {
            next = c->next;
            if (!send_event(c)) {
                end_stream(c);
                shutdown(c->fd, SHUT_RDWR);
            }
        }
    }
}

static int answer(struct connection *c) {
    static const char shape[] = "{\"model_name\":\"bench\",\"received\":%llu,\"outputs\":[";
    char text[1024];
    char body[ENVELOPE_MAX];
    size_t length = (size_t)snprintf(body, ANSWER, "{\"posts\":%llu,\"events\":%llu}", posts, events_sent);
    if (c->is_post) {
        posts++;
        if (c->events) return begin_stream(c);
        size_t used = (size_t)snprintf(body, ANSWER, shape, c->body);
        memset(body + used, ' ', ANSWER - used);
        memcpy(body + ANSWER - 2, "]}", 2);
        length = c->is_invocation ? envelop(body) : ANSWER;
    }
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n%s\r\n%.*s",
                        length, c->closing ? "Connection: close\r\n" : "",
                        c->is_head ? 0 : (int)length, body);
    return append(c, text, (size_t)size);
}

static int refuse(struct connection *c, const char *status) {
    char text[128];
    int size = snprintf(text, sizeof text,
                        "HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status);
    c->closing = 1;
    c->left = 0;
    c->in_body = 0;
    return append(c, text, (size_t)size);
}

/* Reads the fields that matter from a complete head. Returns 0 when the answer did not fit. */
static int begin(struct connection *c) {
    c->is_post = strncmp(c->head, "POST ", 5) == 0;
    c->is_head = strncmp(c->head, "HEAD ", 5) == 0;
    c->body = c->events = 0;
    int version_1_0 = 0, expects = 0;
    char *end = strstr(c->head, "\r\n");
    if (end) version_1_0 = end - c->head > 8 && strncmp(end - 8, "HTTP/1.0", 8) == 0;
    c->is_invocation = end && memmem(c->head, (size_t)(end - c->head), "/invocations", 12) != NULL;
    if (version_1_0) c->closing = 1;
    for (char *line = end; line && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
        char *field = line + 2;
        if (strncasecmp(field, "content-length:", 15) == 0) c->body = strtoull(field + 15, NULL, 10);
        if (strncasecmp(field, "x-events:", 9) == 0) c->events = strtoul(field + 9, NULL, 10);
        if (strncasecmp(field, "transfer-encoding:", 18) == 0) return refuse(c, "411 Length Required");
        if (strncasecmp(field, "connection: close", 17) == 0) c->closing = 1;
        if (strncasecmp(field, "connection: keep-alive", 22) == 0) c->closing = 0;
        if (strncasecmp(field, "expect: 100-continue", 20) == 0) expects = 1;
    }
    c->left = c->body;
    c->in_body = 1;
    return !expects || append(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
}

/* Takes bytes off the stream: heads into `head`, bodies nowhere. Returns 0 to drop the connection. */
static int take(struct connection *c, const char *bytes, size_t count) {
    while (count > 0 || (c->in_body && c->left == 0)) {
        /* Nobody here pipelines behind a stream. */
        if (c->link) return 0;
        if (c->in_body) {
            size_t part = count < c->left ? count : (size_t)c->left;
            bytes += part, count -= part, c->left -= part;
            if (c->left > 0) return 1;
            c->in_body = 0;
            if (!answer(c)) return 0;
            if (c->closing) return 1;
            continue;
        }
        size_t room = HEAD_MAX - c->head_length, part = count < room ? count : room;
        memcpy(c->head + c->head_length, bytes, part);
        size_t before = c->head_length, length = before + part;
        c->head[length] = 0;
        char *end = memmem(c->head, length, "\r\n\r\n", 4);
        if (!end) {
            c->head_length = length;
            if (length == HEAD_MAX) return refuse(c, "431 Request Header Fields Too Large");
            return 1;
        }
        size_t taken = (size_t)(end - c->head) + 4 - before;
        end[2] = '\r', end[4] = 0;
        bytes += taken, count -= taken, c->head_length = 0;
        if (!begin(c)) return 0;
        if (c->closing && !c->in_body) return 1;
    }
    return 1;
}

/* `ended`: the other side has sent its FIN, which a short read would hide from an edge trigger. */
static void serve(struct connection *c, int ended) {
    for (;;) {
        ssize_t count = recv(c->fd, incoming, READ_SIZE, 0);
        if (count > 0) {
            if (!take(c, incoming, (size_t)count)) break;
            if (!flush_answers(c)) break;
            if (count < READ_SIZE && !ended) return;
        } else if (count < 0 && errno == EINTR) {
            continue;
        } else if (count < 0 && errno == EAGAIN) {
            return;
        } else {
            break;
        }
    }
    drop(c);
}

static void welcome(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) {
            close(fd);
            continue;
        }
        c->fd = fd;
        /* Edge-triggered for writing too: a socket that filled up reports once it has room. */
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) drop(c);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        perror("upstream: cannot listen");
        exit(1);
    }
    return fd;
}

static void watch(int fd, void *known_as) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = known_as};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) {
        perror("upstream: cannot watch");
        exit(1);
    }
}

int main(int argc, char **argv) {
    int port = argc == 2 ? atoi(argv[1]) : 0;
    if (port <= 0 || port > 65535) {
        fputs("usage: upstream PORT\n", stderr);
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int listener = listen_on(port);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    watch(listener, NULL);
    watch(timer, streams);
    puts("ready");
    fflush(stdout);
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) return 1;
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) welcome(listener);
            else if (events[i].data.ptr == streams) tick();
            else if (events[i].events & EPOLLOUT && c->out_to && !flush_answers(c)) drop(c);
            else serve(c, (events[i].events & EPOLLRDHUP) != 0);
        }
    }
}
