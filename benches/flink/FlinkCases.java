import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import org.apache.flink.api.common.accumulators.LongCounter;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.FlatMapFunction;
import org.apache.flink.api.common.functions.JoinFunction;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFilterFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.SimpleStreamFormat;
import org.apache.flink.connector.file.src.reader.StreamFormat;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.execution.JobClient;
import org.apache.flink.core.fs.FSDataInputStream;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;
import org.apache.flink.streaming.api.functions.windowing.WindowFunction;
import org.apache.flink.streaming.api.windowing.assigners.EventTimeSessionWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;
import org.apache.flink.util.Collector;

/**
 * The programs of benches/src/bin/flink_cases.rs on Flink's DataStream API: the same files, the same windows, the
 * same digests. Arguments: REST address, REST port, this program's jar. Each line "CASE FOLDER" on standard input runs a
 * job on the cluster and is answered "job ID", then "ok COUNT CHECKSUM", or "error TEXT".
 */
public class FlinkCases {
    static final Duration WINDOW = Duration.ofSeconds(10);
    static final Duration GAP = Duration.ofMillis(1_001);
    static final int NOTE_BYTES = 100;
    static final Duration LATENESS = Duration.ofMillis(500);

    /** time, key, value. Tuples are what Flink serialises fastest. */
    static class Event extends TypeHint<Tuple3<Long, Long, Long>> {}

    /** A line "time_ms,key,value", split by hand. */
    public static class EventLines extends SimpleStreamFormat<Tuple3<Long, Long, Long>> {
        @Override
        public Reader<Tuple3<Long, Long, Long>> createReader(Configuration conf, FSDataInputStream stream) {
            return new Lines(new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8)));
        }

        @Override
        public TypeInformation<Tuple3<Long, Long, Long>> getProducedType() {
            return TypeInformation.of(new Event());
        }
    }

    static class Lines implements StreamFormat.Reader<Tuple3<Long, Long, Long>> {
        private final BufferedReader input;

        Lines(BufferedReader input) {
            this.input = input;
        }

        @Override
        public Tuple3<Long, Long, Long> read() throws IOException {
            String line = input.readLine();
            if (line == null) {
                return null;
            }
            int key = line.indexOf(',') + 1;
            int value = line.indexOf(',', key) + 1;
            return Tuple3.of(number(line, 0, key - 1), number(line, key, value - 1), number(line, value, line.length()));
        }

        private static long number(String line, int begin, int end) {
            long number = 0;
            for (int at = begin; at < end; at++) {
                number = number * 10 + (line.charAt(at) - '0');
            }
            return number;
        }

        @Override
        public void close() throws IOException {
            input.close();
        }
    }

    static DataStream<Tuple3<Long, Long, Long>> events(StreamExecutionEnvironment env, String folder, String input) {
        WatermarkStrategy<Tuple3<Long, Long, Long>> strategy =
                WatermarkStrategy.<Tuple3<Long, Long, Long>>forBoundedOutOfOrderness(LATENESS)
                        .withTimestampAssigner((event, before) -> event.f0);
        return env.fromSource(
                FileSource.forRecordStreamFormat(new EventLines(), new Path(folder + "/" + input)).build(), strategy, input);
    }

    /** Counts the results, sums their digests, and lets none through. */
    abstract static class Tally<T> extends RichFilterFunction<T> {
        private final LongCounter count = new LongCounter();
        private final LongCounter checksum = new LongCounter();

        abstract long digest(T result);

        @Override
        public void open(OpenContext context) {
            getRuntimeContext().addAccumulator("count", count);
            getRuntimeContext().addAccumulator("checksum", checksum);
        }

        @Override
        public boolean filter(T result) {
            count.add(1L);
            checksum.add(digest(result));
            return false;
        }
    }

    static long mix(long a, long b, long c) {
        return ((a * 31 + b) * 0x9e3779b97f4a7c15L) ^ (c * 0x2545f4914f6cdd1dL);
    }

    static class Words implements FlatMapFunction<String, Tuple2<String, Long>> {
        @Override
        public void flatMap(String line, Collector<Tuple2<String, Long>> out) {
            int begin = 0;
            for (int end = line.indexOf(' '); end >= 0; end = line.indexOf(' ', begin)) {
                out.collect(Tuple2.of(line.substring(begin, end), 1L));
                begin = end + 1;
            }
            out.collect(Tuple2.of(line.substring(begin), 1L));
        }
    }

    static class WordTally extends Tally<Tuple2<String, Long>> {
        @Override
        long digest(Tuple2<String, Long> result) {
            String word = result.f0;
            int length = word.length();
            int ends = length >= 4 ? 4 : length >= 2 ? 2 : 0;
            return mix(letters(word, 0, ends), letters(word, length - ends, ends), mix(length, result.f1, 0));
        }

        static long letters(String word, int from, int count) {
            long letters = 0;
            for (int at = 0; at < count; at++) {
                letters |= (long) word.charAt(from + at) << (8 * at);
            }
            return letters;
        }
    }

    static void wordCount(StreamExecutionEnvironment env, String folder) {
        env.fromSource(
                        FileSource.forRecordStreamFormat(new TextLineInputFormat(), new Path(folder + "/words")).build(),
                        WatermarkStrategy.noWatermarks(),
                        "lines")
                .flatMap(new Words())
                .keyBy(word -> word.f0)
                .sum(1)
                .filter(new WordTally())
                .sinkTo(new DiscardingSink<>());
    }

    static class Count implements AggregateFunction<Tuple3<Long, Long, Long>, Long, Long> {
        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(Tuple3<Long, Long, Long> event, Long count) {
            return count + 1;
        }

        @Override
        public Long getResult(Long count) {
            return count;
        }

        @Override
        public Long merge(Long one, Long other) {
            return one + other;
        }
    }

    /** Key, beginning, end, count. */
    static class WithWindow implements WindowFunction<Long, Tuple4<Long, Long, Long, Long>, Long, TimeWindow> {
        @Override
        public void apply(Long key, TimeWindow window, Iterable<Long> counts, Collector<Tuple4<Long, Long, Long, Long>> out) {
            out.collect(Tuple4.of(key, window.getStart(), window.getEnd(), counts.iterator().next()));
        }
    }

    static class WindowTally extends Tally<Tuple4<Long, Long, Long, Long>> {
        @Override
        long digest(Tuple4<Long, Long, Long, Long> result) {
            return mix(result.f0, result.f2, result.f3);
        }
    }

    static void windowCount(StreamExecutionEnvironment env, String folder) {
        events(env, folder, "events")
                .keyBy(event -> event.f1)
                .window(TumblingEventTimeWindows.of(WINDOW))
                .aggregate(new Count(), new WithWindow())
                .filter(new WindowTally())
                .sinkTo(new DiscardingSink<>());
    }

    static class SessionTally extends Tally<Tuple4<Long, Long, Long, Long>> {
        @Override
        long digest(Tuple4<Long, Long, Long, Long> result) {
            return mix(result.f0, result.f1, result.f2) + result.f3;
        }
    }

    static void session(StreamExecutionEnvironment env, String folder) {
        events(env, folder, "events")
                .keyBy(event -> event.f1)
                .window(EventTimeSessionWindows.withGap(GAP))
                .aggregate(new Count(), new WithWindow())
                .filter(new SessionTally())
                .sinkTo(new DiscardingSink<>());
    }

    static class Pair
            implements JoinFunction<Tuple3<Long, Long, Long>, Tuple3<Long, Long, Long>, Tuple3<Long, Long, Long>> {
        @Override
        public Tuple3<Long, Long, Long> join(Tuple3<Long, Long, Long> order, Tuple3<Long, Long, Long> payment) {
            return Tuple3.of(order.f1, order.f2, payment.f2);
        }
    }

    static class PairTally extends Tally<Tuple3<Long, Long, Long>> {
        @Override
        long digest(Tuple3<Long, Long, Long> result) {
            return mix(result.f0, result.f1, result.f2);
        }
    }

    static void windowJoin(StreamExecutionEnvironment env, String folder) {
        events(env, folder, "orders")
                .join(events(env, folder, "payments"))
                .where(order -> order.f1)
                .equalTo(payment -> payment.f1)
                .window(TumblingEventTimeWindows.of(WINDOW))
                .apply(new Pair())
                .filter(new PairTally())
                .sinkTo(new DiscardingSink<>());
    }

    /** Of each key how many events there were, what they add up to, and a note that makes the state large. */
    static class Balances extends KeyedProcessFunction<Long, Tuple3<Long, Long, Long>, Tuple2<Long, Long>> {
        private transient ValueState<Tuple3<Long, Long, byte[]>> balances;

        @Override
        public void open(OpenContext context) {
            TypeInformation<Tuple3<Long, Long, byte[]>> type = TypeInformation.of(new TypeHint<>() {});
            balances = getRuntimeContext().getState(new ValueStateDescriptor<>("balances", type));
        }

        @Override
        public void processElement(Tuple3<Long, Long, Long> event, Context context, Collector<Tuple2<Long, Long>> out)
                throws Exception {
            Tuple3<Long, Long, byte[]> balance = balances.value();
            if (balance == null) {
                balance = Tuple3.of(0L, 0L, new byte[NOTE_BYTES]);
            }
            balance.f0 += 1;
            balance.f1 += event.f2;
            balance.f2[(int) (event.f2 % NOTE_BYTES)] += 1;
            balances.update(balance);
            out.collect(Tuple2.of(event.f1, balance.f0));
        }
    }

    static class BalanceTally extends Tally<Tuple2<Long, Long>> {
        @Override
        long digest(Tuple2<Long, Long> result) {
            return mix(result.f0, result.f1, 0);
        }
    }

    static void largeState(StreamExecutionEnvironment env, String folder) {
        events(env, folder, "wide")
                .keyBy(event -> event.f1)
                .process(new Balances())
                .filter(new BalanceTally())
                .sinkTo(new DiscardingSink<>());
    }

    static String run(String[] arguments, String name, String folder) throws Exception {
        StreamExecutionEnvironment env =
                StreamExecutionEnvironment.createRemoteEnvironment(
                        arguments[0], Integer.parseInt(arguments[1]), new Configuration(), arguments[2]);
        env.setParallelism(2);
        env.getConfig().enableObjectReuse();
        switch (name) {
            case "word_count": wordCount(env, folder); break;
            case "window_count": windowCount(env, folder); break;
            case "window_join": windowJoin(env, folder); break;
            case "session": session(env, folder); break;
            case "large_state": largeState(env, folder); break;
            default: throw new IllegalArgumentException("no case " + name);
        }
        JobClient job = env.executeAsync(name);
        System.out.println("job " + job.getJobID());
        Map<String, Object> results = job.getJobExecutionResult().get().getAllAccumulatorResults();
        return "ok " + results.get("count") + " " + Long.toHexString((Long) results.get("checksum"));
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String answer;
            try {
                String[] words = line.split(" ", 2);
                answer = run(arguments, words[0], words[1]);
            } catch (Exception error) {
                StringBuilder text = new StringBuilder("error");
                for (Throwable cause = error; cause != null; cause = cause.getCause()) {
                    text.append(" | ").append(String.valueOf(cause).replace("\n", " "));
                }
                answer = text.toString();
            }
            System.out.println(answer);
        }
    }
}
