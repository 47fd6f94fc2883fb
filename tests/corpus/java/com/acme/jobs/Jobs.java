package com.acme.jobs;

import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.quartz.core.JobRunShell;

public class Jobs {
    static class OrderException extends RuntimeException {
        OrderException(String message, Throwable cause) { super(message, cause); }
    }

    static void nullPointer(int n) { String text = n < 0 ? "" : null; text.length(); }
    static void badNumber(int n) { Integer.parseInt("x" + n); }
    static void badNumberInStream(int n) {
        Stream.of("1", "y" + n).map(text -> Integer.parseInt(text)).collect(Collectors.toList());
    }
    static void emptyList(int n) { new ArrayList<Integer>().get(n); }
    static void emptyListElsewhere(int n) { Store.first(new ArrayList<Integer>(), n); }
    static void caused(int n) {
        try { Store.parse("z" + n); } catch (NumberFormatException error) { throw new OrderException("order " + n, error); }
    }
    static void causedByAnother(int n) {
        try { Store.first(new ArrayList<Integer>(), n); } catch (RuntimeException error) { throw new OrderException("order " + n, error); }
    }
    static void inPool(int n) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(1);
        try { pool.submit(() -> Store.parse("p" + n)).get(); } finally { pool.shutdown(); }
    }
    static void anonymous(int n) {
        new Runnable() { public void run() { throw new UnsupportedOperationException("number " + n); } }.run();
    }
    static void suppressed(int n) throws Exception {
        try (AutoCloseable closing = () -> { throw new IllegalArgumentException("close " + n); }) {
            throw new IllegalStateException("body " + n);
        }
    }
    static void overflow(int n) { if (n % 2 == 0) Store.down(n); else Store.up(n); }

    static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray())
            out.append(c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\t' ? "\\t" : c == '\r' ? "" : "" + c);
        return out.append('"').toString();
    }

    public static void main(String[] arguments) {
        Map<String, JobRunShell.Job> jobs = new LinkedHashMap<>();
        jobs.put("nullPointer", Jobs::nullPointer);
        jobs.put("badNumber", Jobs::badNumber);
        jobs.put("badNumberInStream", Jobs::badNumberInStream);
        jobs.put("emptyList", Jobs::emptyList);
        jobs.put("emptyListElsewhere", Jobs::emptyListElsewhere);
        jobs.put("caused", Jobs::caused);
        jobs.put("causedByAnother", Jobs::causedByAnother);
        jobs.put("inPool", Jobs::inPool);
        jobs.put("anonymous", Jobs::anonymous);
        jobs.put("suppressed", Jobs::suppressed);
        jobs.put("overflow", Jobs::overflow);
        for (int n : new int[] {8, 4210})
            for (Map.Entry<String, JobRunShell.Job> job : jobs.entrySet())
                System.out.println("{\"name\": " + quoted(job.getKey()) + ", \"kind\": \"\", \"message\": \"\", \"stack\": "
                    + quoted(JobRunShell.run(job.getKey(), job.getValue(), n)) + "}");
    }
}

class Store {
    static int parse(String text) { return Integer.parseInt(text); }
    static int first(List<Integer> list, int n) { return list.get(n); }
    static int up(int n) { return down(n + 1) + 1; }
    static int down(int n) { return up(n + 1) + 1; }
}
