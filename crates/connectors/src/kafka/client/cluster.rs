//! The brokers of a cluster: who they are, who leads which partition, who coordinates what, and a connection to each.

use std::collections::{BTreeMap, HashMap};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, DescribeConfigsRequest, FindCoordinatorRequest, MetadataRequest, TopicName,
    describe_configs_request::DescribeConfigsResource,
};
use kafka_protocol::protocol::StrBytes;
use tidemill_core::{Error, Kind, Result};

use super::connection::{Connection, Dialer};
use super::failure::error_of;
use super::protocol::Api;
use crate::kafka::security::Access;

/// `FindCoordinator`'s kinds of keys.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// `DescribeConfigs`' kind of resource.
const BROKER: i8 = 4;

/// A topic and its partitions, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPartitions {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<i32>,
}

/// A cluster as one thread sees it. After an error of a broker its connection is dropped and metadata is asked for anew.
pub struct Cluster {
    servers: Vec<String>,
    dialer: Dialer,
    brokers: BTreeMap<i32, String>,
    connections: HashMap<i32, Connection>,
    leaders: HashMap<String, Vec<i32>>,
    coordinators: HashMap<(i8, String), i32>,
}

impl Cluster {
    /// The cluster that the servers belong to. Connects when it is first asked for something.
    pub fn new(access: &Access) -> Result<Cluster> {
        let servers: Vec<String> =
            access.servers.split(',').map(str::trim).filter(|server| !server.is_empty()).map(str::to_string).collect();
        if servers.is_empty() {
            return Err(Error::input("no Kafka broker is named").hint("name at least one, as `host:port`"));
        }
        if let Some(wrong) = servers.iter().find(|server| !server.contains(':')) {
            return Err(Error::input(format!("`{wrong}` is no address of a Kafka broker")).hint("write `host:port`"));
        }
        Ok(Cluster {
            servers,
            dialer: Dialer::new(&access.security)?,
            brokers: BTreeMap::new(),
            connections: HashMap::new(),
            leaders: HashMap::new(),
            coordinators: HashMap::new(),
        })
    }

    /// Sends a request to a broker and waits for the answer.
    pub fn call<R: Api>(&mut self, broker: i32, request: &R) -> Result<R::Response> {
        let answer = self.connection(broker)?.call(request);
        self.checked(broker, answer)
    }

    /// Sends a request without waiting for its answer.
    pub fn send<R: Api>(&mut self, broker: i32, request: &R) -> Result<()> {
        let sent = self.connection(broker)?.send(request);
        self.checked(broker, sent)
    }

    /// The answer to the oldest request sent to a broker that has none yet.
    pub fn receive<R: Api>(&mut self, broker: i32) -> Result<R::Response> {
        let Some(connection) = self.connections.get_mut(&broker) else {
            return Err(Error::external(format!("the connection to Kafka broker {broker} was given up")));
        };
        let answer = connection.receive::<R>();
        self.checked(broker, answer)
    }

    /// Forgets what was known, so that it is asked for again: leaders and coordinators move.
    pub fn forget(&mut self) {
        self.leaders.clear();
        self.coordinators.clear();
    }

    /// Also drops all connections: answers may be on their way that nobody waits for any more.
    pub fn disconnect(&mut self) {
        self.forget();
        self.connections.clear();
    }

    /// All brokers known.
    pub fn broker_ids(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// These topics (`None`: all but Kafka's own) with their partitions; learns their leaders. A topic that is not there
    /// is left out.
    pub fn topics(&mut self, names: Option<&[String]>) -> Result<Vec<TopicPartitions>> {
        let request =
            MetadataRequest::default().with_allow_auto_topic_creation(false).with_topics(names.map(|names| {
                names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect()
            }));
        let answer = self.call_any(&request)?;
        self.brokers = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host.as_str(), broker.port)))
            .collect();
        self.connections.retain(|broker, _| self.brokers.contains_key(broker));
        let mut topics = Vec::new();
        for topic in &answer.topics {
            if topic.error_code == kafka_protocol::ResponseError::UnknownTopicOrPartition.code() || topic.is_internal {
                continue;
            }
            let name = topic.name.as_ref().map(|name| name.0.as_str()).unwrap_or_default();
            error_of(topic.error_code, || format!("look up the topic `{name}`"))?;
            topics.push(self.learn(name, topic));
        }
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(topics)
    }

    fn learn(&mut self, name: &str, topic: &MetadataResponseTopic) -> TopicPartitions {
        let mut partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
        partitions.sort_unstable();
        let mut leaders = vec![-1; partitions.last().map_or(0, |last| *last as usize + 1)];
        for partition in &topic.partitions {
            leaders[partition.partition_index as usize] = partition.leader_id.0;
        }
        self.leaders.insert(name.to_string(), leaders);
        TopicPartitions { topic: name.to_string(), partitions }
    }

    /// How many partitions a topic has.
    pub fn partitions(&mut self, topic: &str) -> Result<usize> {
        if !self.leaders.contains_key(topic) {
            self.topics(Some(&[topic.to_string()]))?;
        }
        self.leaders.get(topic).map(Vec::len).ok_or_else(|| no_topic(topic))
    }

    /// The broker that leads a partition.
    pub fn leader(&mut self, topic: &str, partition: i32) -> Result<i32> {
        if self.partitions(topic)? <= partition as usize {
            // Newer than what is known.
            self.topics(Some(&[topic.to_string()]))?;
        }
        let leader = self.leaders.get(topic).and_then(|leaders| leaders.get(partition as usize)).copied();
        match leader {
            Some(leader) if leader >= 0 => Ok(leader),
            Some(_) => {
                self.leaders.remove(topic);
                Err(Error::external(format!("partition {partition} of the topic `{topic}` has no leader now")))
            }
            // Who named it has seen it; another broker may not have heard of it yet.
            None => Err(Error::external(format!("the topic `{topic}` has no partition {partition}"))),
        }
    }

    /// The broker that keeps a group's offsets.
    pub fn group_coordinator(&mut self, group: &str) -> Result<i32> {
        self.coordinator(GROUP, group)
    }

    /// The broker that keeps a transactional id.
    pub fn transaction_coordinator(&mut self, transactional_id: &str) -> Result<i32> {
        self.coordinator(TRANSACTION, transactional_id)
    }

    fn coordinator(&mut self, kind: i8, key: &str) -> Result<i32> {
        let known = (kind, key.to_string());
        if let Some(broker) = self.coordinators.get(&known) {
            return Ok(*broker);
        }
        let request =
            FindCoordinatorRequest::default().with_key(StrBytes::from_string(key.to_string())).with_key_type(kind);
        let answer = self.call_any(&request)?;
        error_of(answer.error_code, || format!("find the coordinator of `{key}`"))?;
        let broker = answer.node_id.0;
        self.brokers.insert(broker, format!("{}:{}", answer.host.as_str(), answer.port));
        // Of short-lived keys there may be many; they are looked up once each.
        if kind == GROUP {
            self.coordinators.insert(known, broker);
        }
        Ok(broker)
    }

    /// A setting of the brokers, if it may be seen.
    pub fn broker_setting(&mut self, name: &str) -> Result<Option<String>> {
        self.topics(Some(&[]))?;
        let Some(broker) = self.broker_ids().first().copied() else { return Ok(None) };
        let resource = DescribeConfigsResource::default()
            .with_resource_type(BROKER)
            .with_resource_name(StrBytes::from_string(broker.to_string()))
            .with_configuration_keys(Some(vec![StrBytes::from_string(name.to_string())]));
        let answer = self.call(broker, &DescribeConfigsRequest::default().with_resources(vec![resource]))?;
        let mut configs = answer.results.into_iter().filter(|result| result.error_code == 0).flat_map(|r| r.configs);
        Ok(configs.find(|config| config.name.as_str() == name).and_then(|config| config.value).map(|v| v.to_string()))
    }

    fn connection(&mut self, broker: i32) -> Result<&mut Connection> {
        if !self.connections.contains_key(&broker) {
            let address = self
                .brokers
                .get(&broker)
                .ok_or_else(|| Error::external(format!("Kafka broker {broker} is not known any more")))?;
            let connection = Connection::open(address, &self.dialer).inspect_err(|_| {
                self.leaders.clear();
                self.coordinators.clear();
            })?;
            self.connections.insert(broker, connection);
        }
        self.connections.get_mut(&broker).ok_or_else(|| Error::bug("a connection vanished"))
    }

    /// Asks any broker: one we are connected to, else the first that answers.
    fn call_any<R: Api>(&mut self, request: &R) -> Result<R::Response> {
        if let Some(broker) = self.connections.keys().next().copied()
            && let Ok(answer) = self.call(broker, request)
        {
            return Ok(answer);
        }
        let mut last = None;
        let known: Vec<String> = self.servers.iter().chain(self.brokers.values()).cloned().collect();
        for server in known {
            match Connection::open(&server, &self.dialer).and_then(|mut connection| connection.call(request)) {
                Ok(answer) => return Ok(answer),
                // Another server would say the same.
                Err(error) if error.kind() == Kind::Input => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::bug("a cluster without servers")))
    }

    /// A connection with an error is of no use any more, and the broker may have lost its role.
    fn checked<R>(&mut self, broker: i32, result: Result<R>) -> Result<R> {
        if result.is_err() {
            self.connections.remove(&broker);
            self.forget();
        }
        result
    }
}

/// A topic's name as messages want it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_string()))
}

/// No replica but a client.
pub const CONSUMER: BrokerId = BrokerId(-1);

fn no_topic(topic: &str) -> Error {
    Error::input(format!("there is no topic `{topic}` in Kafka"))
        .hint("create it; Tidemill does not create topics in Kafka")
}
