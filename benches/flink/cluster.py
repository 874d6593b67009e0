"""A standalone Flink cluster on loopback: JobManager, one TaskManager, and the program that submits the cases.

The Python package of Flink has the jars but no shell scripts, so the Java main classes are started directly. Standard
library only.
"""

import glob
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")

# What the distribution's conf/config.yaml passes to every JVM on Java 17.
JAVA_OPENS = [
    f"--add-opens=java.base/{name}=ALL-UNNAMED"
    for name in (
        "java.lang java.net java.io java.nio sun.nio.ch java.lang.reflect java.text java.time "
        "java.util java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks"
    ).split()
]

LOG4J = """rootLogger.level = WARN
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""

SLOTS = 2
READY_WITHIN_S = 120


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """A JVM, with its processor time and memory read from /proc. All it says goes to a log."""

    def __init__(self, argv, env, log, pipe=False):
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(
                argv, env=env, cwd=os.path.dirname(log), text=pipe, stderr=out,
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL, stdout=subprocess.PIPE if pipe else out)

    def cpu_s(self):
        with open(f"/proc/{self.popen.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def peak_mb(self):
        """The most resident memory since `reset_peak`, in MB of 10^6 bytes."""
        with open(f"/proc/{self.popen.pid}/status") as f:
            line = next(line for line in f if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6

    def reset_peak(self):
        with open(f"/proc/{self.popen.pid}/clear_refs", "w") as f:
            f.write("5")

    def stop(self):
        self.popen.terminate()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


class Cluster:
    """Runs the cases of `jar`; `with` starts and stops it. `heap_mb` is the TaskManager's. With `rocksdb_mb` state is in
    RocksDB, which has so much memory."""

    def __init__(self, home, jar, work, heap_mb, rocksdb_mb=0):
        self.home, self.jar, self.heap_mb = home, jar, heap_mb
        self.work = os.path.abspath(work)
        for name in ("conf", "log", "tmp", "plugins"):
            os.makedirs(os.path.join(self.work, name), exist_ok=True)
        self.rest = free_port()
        conf = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.rest,
            "blob.server.port": 0,
            "taskmanager.numberOfTaskSlots": SLOTS,
            "parallelism.default": SLOTS,
            "io.tmp.dirs": os.path.join(self.work, "tmp"),
            # Without the shell scripts these have to be given one by one. Managed memory is for RocksDB.
            "taskmanager.cpu.cores": float(SLOTS),
            "taskmanager.memory.task.heap.size": f"{heap_mb - 128}m",
            "taskmanager.memory.task.off-heap.size": "0m",
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.network.min": "128m",
            "taskmanager.memory.network.max": "128m",
            "taskmanager.memory.managed.size": f"{rocksdb_mb}m",
            "state.backend.type": "rocksdb" if rocksdb_mb else "hashmap",
            # With 64 MB, the default, each buffer alone would be more than there is: it would be written out all the time.
            "state.backend.rocksdb.writebuffer.size": f"{max(rocksdb_mb // 16, 1)}m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
        }
        with open(os.path.join(self.work, "conf", "config.yaml"), "w") as f:
            f.writelines(f"{key}: {json.dumps(value)}\n" for key, value in conf.items())
        with open(os.path.join(self.work, "conf", "log4j.properties"), "w") as f:
            f.write(LOG4J)
        self.processes = {}

    def java(self, name, memory, main, *args, classes=(), pipe=False):
        conf = os.path.join(self.work, "conf")
        jars = sorted(glob.glob(os.path.join(self.home, "lib", "*.jar")))
        argv = ["java", "-XX:+UseG1GC", *memory, *JAVA_OPENS, f"-Dlog4j.configurationFile=file://{conf}/log4j.properties",
                "-cp", ":".join([*jars, *classes, conf]), main, *args]
        env = dict(os.environ, FLINK_CONF_DIR=conf, FLINK_LIB_DIR=os.path.join(self.home, "lib"),
                   FLINK_PLUGINS_DIR=os.path.join(self.work, "plugins"))
        self.processes[name] = Process(argv, env, os.path.join(self.work, "log", f"{name}.log"), pipe)

    def __enter__(self):
        conf = ["--configDir", os.path.join(self.work, "conf")]
        try:
            self.java("jobmanager", ["-Xmx1024m"],
                      "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                      *conf, "--executionMode", "cluster")
            self.java("taskmanager",
                      [f"-Xmx{self.heap_mb}m", "-XX:MaxDirectMemorySize=256m", "-XX:MaxMetaspaceSize=256m"],
                      "org.apache.flink.runtime.taskexecutor.TaskManagerRunner", *conf)
            self.java("cases", ["-Xmx512m"], "FlinkCases", "127.0.0.1", str(self.rest), self.jar,
                      classes=[self.jar], pipe=True)
            deadline = time.time() + READY_WITHIN_S
            while self.get("/overview").get("slots-available") != SLOTS:
                ended = [name for name, process in self.processes.items() if process.popen.poll() is not None]
                if ended:
                    raise RuntimeError(f"Flink's {' and '.join(ended)} ended at once; see the logs in {self.work}/log")
                if time.time() > deadline:
                    raise RuntimeError(f"no TaskManager within {READY_WITHIN_S} s; see the logs in {self.work}/log")
                time.sleep(0.2)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(list(self.processes.values())):
            process.stop()

    def get(self, path):
        """What the REST interface says; nothing while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=60) as reply:
                return json.load(reply)
        except (urllib.error.URLError, OSError):
            return {}

    def answer(self, expected):
        line = self.processes["cases"].popen.stdout.readline()
        word, _, rest = line.strip().partition(" ")
        if word != expected:
            raise RuntimeError(f"Flink: {rest or 'the submitting program ended'}; see the logs in {self.work}/log")
        return rest.split()

    def run(self, case, folder):
        """Runs a case; its results, seconds from running to its end, processor seconds and peak memory of the cluster."""
        servers = [self.processes[name] for name in ("jobmanager", "taskmanager")]
        for process in servers:
            process.reset_peak()
        before = sum(process.cpu_s() for process in servers)
        pipe = self.processes["cases"].popen.stdin
        pipe.write(f"{case} {folder}\n")
        pipe.flush()
        (job,) = self.answer("job")
        count, checksum = self.answer("ok")
        cpu_s = sum(process.cpu_s() for process in servers) - before
        told = self.get(f"/jobs/{job}")
        return {
            "count": int(count), "checksum": checksum, "cpu_s": cpu_s,
            "seconds": (told["end-time"] - told["timestamps"]["RUNNING"]) / 1000,
            "peak_mb": sum(process.peak_mb() for process in servers),
        }
