//! From the HTTP append of an order to the screen's event with it, under load.
//!
//! Figure wanted: p99 below 100 ms at 10,000 orders/s. Four clients post 100 orders each 10 ms in turn; the clock of an order
//! starts when its request is due, so that a slow answer is not left out. Of each request the last order is of a category
//! nobody else buys: its row tells exactly when that order was on the screen ("own row"). The busiest row, the day's total, is
//! written once a tick: a request was in it when its orders are at least all posted until then. Two readers listen: one as a
//! page does (20 frames a second), one without a limit: the difference is the page's own pace.
//!
//! `latency [seconds] [orders a second] [job's tick in ms, 0: its own] [checkpoint interval in ms]`

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use order_generator::time::{write_compact, write_local};
use serde_json::Value;
use tidemill_benches::{CHECKPOINT_INTERVAL_MS, Failure, Screen, agent, cpu_seconds, load, number, quantile};

const POSTERS: u64 = 4;
/// A request each 10 ms.
const REQUESTS_PER_S: u64 = 100;
/// Requests before the measured ones, seconds.
const WARM_UP_S: u64 = 5;

/// When what was first seen.
#[derive(Default)]
struct Seen {
    own_rows: HashMap<u64, Instant>,
    /// (paid orders, when), growing.
    totals: Vec<(u64, Instant)>,
}

fn orders(request: u64, count: u64, now_ms: i64) -> Vec<u8> {
    let (mut id, mut local) = (Vec::new(), Vec::new());
    write_compact(&mut id, now_ms);
    write_local(&mut local, now_ms);
    let (id, local) = (String::from_utf8_lossy(&id), String::from_utf8_lossy(&local));
    let mut body = String::new();
    for index in 0..count {
        let number = request * count + index;
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let category = match index + 1 == count {
            true => format!("P{request}"),
            false => ["数码", "美食", "时尚", "家居", "运动", "母婴", "大杂烩", "包包"][mixed as usize % 8].to_string(),
        };
        let (user, gender) = (mixed % 20_000, if mixed.is_multiple_of(2) { "男" } else { "女" });
        let province = ["广东省", "浙江省", "北京市", "四川省"][(mixed >> 3) as usize % 4];
        body += &format!(
            "{{\"orderId\":\"{id}{:06}\",\"userId\":\"U{user}\",\"userName\":\"王芳\",\"gender\":\"{gender}\",\"goods\":\"{category}商品3\",\
             \"goodsType\":\"{category}\",\"brand\":\"卫龙\",\"orderTime\":\"{local}\",\"orderTimeSeries\":{now_ms},\"price\":\"9.90\",\"num\":2,\
             \"totalPrice\":\"19.80\",\"status\":\"已支付\",\"address\":\"{province}\",\"phone\":13800000000}}\n",
            number % 1_000_000
        );
    }
    body.into_bytes()
}

/// Notes what the event stream tells until told to stop.
fn listen(url: &str, stop: &AtomicBool, seen: &Mutex<Seen>) -> Result<(), Failure> {
    let body = agent().get(url).call()?.into_body();
    for line in BufReader::new(body.into_reader()).lines() {
        let (line, now) = (line?, Instant::now());
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let event: Value = serde_json::from_str(data)?;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for row in event["rows"].as_array().into_iter().flatten() {
            if let Some(orders) = row["value"]["unpaid_orders"].as_u64().and(row["value"]["orders"].as_u64()) {
                seen.totals.push((orders, now));
            } else if let Some(request) = row["key"].as_str().and_then(|key| key.split_once("/P")?.1.parse().ok()) {
                seen.own_rows.entry(request).or_insert(now);
            }
        }
    }
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn post(screen_url: &str, poster: u64, requests: u64, count: u64, begin: Instant) -> Result<Vec<f64>, Failure> {
    let agent = agent();
    let url = format!("{screen_url}/api/topics/orders/records?key=orderId");
    let mut took = Vec::new();
    for request in (poster..requests).step_by(POSTERS as usize) {
        let due = begin + Duration::from_secs(1) * request as u32 / REQUESTS_PER_S as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let body = orders(request, count, now_ms());
        let mut answer = agent.post(&url).header("content-type", "application/x-ndjson").send(&body[..])?;
        answer.body_mut().read_to_string()?;
        took.push(due.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

fn show(name: &str, mut values: Vec<f64>, of: u64) {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(&mut values, share));
    println!("  {name:<34} p50 {p50:6.1} ms   p99 {p99:6.1} ms   max {most:6.1} ms   ({} of {of})", values.len());
}

fn main() -> Result<(), Failure> {
    let (seconds, rate, tick) = (number(1, 30), number(2, 10_000), number(3, 0).to_string());
    let arguments = ["--tick-ms", &tick];
    let interval_ms = number(4, CHECKPOINT_INTERVAL_MS);
    let screen = Screen::start(if tick == "0" { &[] } else { &arguments }, interval_ms)?;
    let requests = (WARM_UP_S + seconds) * REQUESTS_PER_S;
    let (count, stop) = (rate / REQUESTS_PER_S, Arc::new(AtomicBool::new(false)));
    let readers = ["", "&fps=0"].map(|fps| {
        let url = format!("{}/api/live-events?tables=orders.total,orders.category{fps}", screen.url);
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), stop.clone());
        let noted = seen.clone();
        (seen, std::thread::spawn(move || listen(&url, &stop, &noted)))
    });
    std::thread::sleep(Duration::from_millis(500));
    let processes = [("server", screen.server.id()), ("order job", screen.job_process()?)];
    let (begin, before) = (Instant::now(), processes.each_ref().map(|(_, id)| cpu_seconds(id)));
    let posters: Vec<_> = (0..POSTERS)
        .map(|poster| {
            let url = screen.url.clone();
            std::thread::spawn(move || post(&url, poster, requests, count, begin))
        })
        .collect();
    let mut appends = Vec::new();
    for poster in posters {
        appends.extend(poster.join().map_err(|_| "a poster panicked")??);
    }
    let took = begin.elapsed().as_secs_f64();
    let after = processes.each_ref().map(|(_, id)| cpu_seconds(id));
    std::thread::sleep(Duration::from_millis(2000));
    stop.store(true, Ordering::Relaxed);

    println!("HTTP append to SSE event, {rate} orders/s over {seconds} s, load {}", load());
    show("append answered (safe on disk)", appends, requests);
    let measured = WARM_UP_S * REQUESTS_PER_S..requests;
    let due = |request: u64| begin + Duration::from_secs(1) * request as u32 / REQUESTS_PER_S as u32;
    for (name, (seen, _)) in ["20 frames/s", "no limit"].iter().zip(&readers) {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let age = |request: u64, at: Instant| at.saturating_duration_since(due(request)).as_secs_f64() * 1e3;
        let own = measured.clone().filter_map(|request| Some(age(request, *seen.own_rows.get(&request)?)));
        show(&format!("own row, {name}"), own.collect(), seconds * REQUESTS_PER_S);
        let total = measured.clone().filter_map(|request| {
            let shown = seen.totals.partition_point(|(orders, _)| *orders < (request + 1) * count);
            Some(age(request, seen.totals.get(shown)?.1))
        });
        show(&format!("day's total, {name}"), total.collect(), seconds * REQUESTS_PER_S);
    }
    let checkpoint = &screen.detail()?["checkpoints"]["latest"];
    let part = |name: &str| checkpoint[name].as_f64().unwrap_or(f64::NAN);
    println!("  last checkpoint: {:.1} MB in {} ms, every {interval_ms} ms", part("bytes") / 1e6, part("duration_ms"));
    for ((name, _), (before, after)) in processes.iter().zip(before.iter().zip(after)) {
        println!("  {name:<9} {:5.1} % of a core", (after - before) / took * 100.0);
    }
    Ok(())
}
