package org.quartz.core;

/** Stands where Quartz's own class of this name stands in a trace, and logs as it does. */
public class JobRunShell {
    public interface Job { void execute(int n) throws Exception; }

    public static String run(String name, Job job, int n) {
        try {
            job.execute(n);
            return "";
        } catch (Throwable error) {
            Exception told = new IllegalStateException("Job threw an unhandled exception.", error);
            java.io.StringWriter text = new java.io.StringWriter();
            ((n % 2 == 0) ? told : error).printStackTrace(new java.io.PrintWriter(text));
            return (n % 2 == 0 ? "Job DEFAULT." + name + " threw an unhandled Exception: \n" : "") + text;
        }
    }
}
