//! A queue that is fair between clients.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Whom a request is from: a key's name or an address.
pub(crate) type ClientId = Arc<str>;

/// Waiting work of several clients. The next one is that of the client of whom the least is being done;
/// among several, of the one whose turn is longest ago. So a client that asks for much delays itself.
pub(crate) struct FairQueue<T> {
    clients: BTreeMap<ClientId, Client<T>>,
    waiting: usize,
    /// Counts what was taken out, to tell whose turn is longest ago.
    turn: u64,
}

struct Client<T> {
    waiting: VecDeque<T>,
    running: usize,
    last_turn: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), waiting: 0, turn: 0 }
    }
}

impl<T> FairQueue<T> {
    /// How much waits.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a client's work at the end of its own.
    pub(crate) fn push(&mut self, client: &ClientId, work: T) {
        let client = self.clients.entry(Arc::clone(client)).or_insert_with(|| Client {
            waiting: VecDeque::new(),
            running: 0,
            last_turn: 0,
        });
        client.waiting.push_back(work);
        self.waiting += 1;
    }

    /// Takes the next work out. It counts as being done until [`end`](Self::end).
    pub(crate) fn take(&mut self) -> Option<(ClientId, T)> {
        let (id, client) = self
            .clients
            .iter_mut()
            .filter(|(_, client)| !client.waiting.is_empty())
            .min_by_key(|(_, client)| (client.running, client.last_turn))?;
        let work = client.waiting.pop_front()?;
        self.turn += 1;
        client.last_turn = self.turn;
        client.running += 1;
        self.waiting -= 1;
        Some((Arc::clone(id), work))
    }

    /// Says that work of this client, which was taken out, has ended.
    pub(crate) fn end(&mut self, id: &ClientId) {
        if let Some(client) = self.clients.get_mut(id) {
            client.running = client.running.saturating_sub(1);
        }
        self.forget(id);
    }

    /// Removes a client's waiting work that `unwanted` says nobody wants any more.
    pub(crate) fn remove(&mut self, id: &ClientId, mut unwanted: impl FnMut(&T) -> bool) {
        if let Some(client) = self.clients.get_mut(id) {
            let before = client.waiting.len();
            client.waiting.retain(|work| !unwanted(work));
            self.waiting -= before - client.waiting.len();
        }
        self.forget(id);
    }

    /// Forgets a client of whom nothing waits or is being done.
    fn forget(&mut self, id: &ClientId) {
        let idle = |client: &Client<T>| client.waiting.is_empty() && client.running == 0;
        if self.clients.get(id).is_some_and(idle) {
            self.clients.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;

    fn client(name: &str) -> ClientId {
        Arc::from(name)
    }

    #[test]
    fn should_take_a_single_clients_work_in_order() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|work| queue.push(&client("a"), work));
        let taken: Vec<i32> = std::iter::from_fn(|| queue.take()).map(|(_, work)| work).collect();
        assert_eq!(taken, [0, 1, 2]);
    }

    #[test]
    fn should_give_each_client_an_equal_share_of_the_places() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|work| queue.push(&client("greedy"), work));
        let four: Vec<_> = (0..4).map(|_| queue.take().unwrap().0).collect();
        assert!(four.iter().all(|id| &**id == "greedy"), "it is alone");
        queue.push(&client("modest"), 0);
        queue.push(&client("modest"), 1);
        // As soon as a place is free, it is the other's, until both have as many.
        queue.end(&four[0]);
        assert_eq!(&*queue.take().unwrap().0, "modest");
        queue.end(&four[1]);
        assert_eq!(&*queue.take().unwrap().0, "modest");
        queue.end(&four[2]);
        assert_eq!(&*queue.take().unwrap().0, "greedy");
    }

    #[test]
    fn should_let_clients_take_turns_where_all_have_as_many() {
        let mut queue = FairQueue::default();
        for name in ["a", "b", "c"] {
            (0..2).for_each(|work| queue.push(&client(name), work));
        }
        let mut taken = String::new();
        while let Some((id, _)) = queue.take() {
            taken += &id;
            queue.end(&id);
        }
        assert_eq!(taken, "abcabc");
    }

    #[test]
    fn should_free_the_place_of_work_that_nobody_wants_and_forget_idle_clients() {
        let mut queue = FairQueue::default();
        (0..4).for_each(|work| queue.push(&client("a"), work));
        queue.remove(&client("a"), |work| work % 2 == 0);
        assert_eq!(queue.waiting(), 2);
        assert_eq!(queue.take().unwrap().1, 1);
        queue.remove(&client("a"), |_| true);
        assert_eq!(queue.waiting(), 0);
        assert_eq!(queue.clients.len(), 1, "something of it is being done");
        queue.end(&client("a"));
        assert!(queue.clients.is_empty());
    }
}
